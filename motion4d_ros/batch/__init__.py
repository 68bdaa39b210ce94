"""`motion4d batch`: many recordings, each analysed in a process of its own, here or on a cluster (extra `[batch]`)."""
