"""`motion4d benchmark`: public data sets, read as they are published and scored by their own protocols."""
