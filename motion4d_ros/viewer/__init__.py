"""Estimates as a stream of the viewer Rerun, and where that goes: for results, running analyses and the node."""
