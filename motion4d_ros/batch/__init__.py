"""`motion4d batch`: many recordings, each analysed in a process of its own, on one machine or on a cluster (extra `[batch]`)."""
