"""Objects that were lost, or led astray in full view: noticed by how they look, put where their masks are."""
