"""Bags as recordings: opened or salvaged, surveyed, their messages matched to images."""
