"""Frames in: brought to working size, shown to the 2D sources, labelled before anything is fitted."""
