"""Network weights: which there are, whence, under which licence, and whether a file is what it should be."""
