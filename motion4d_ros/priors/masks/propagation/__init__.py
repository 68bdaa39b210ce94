"""Masks carried from frame to frame without a network."""
