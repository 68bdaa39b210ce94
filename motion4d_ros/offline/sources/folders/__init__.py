"""Folders of images as recordings, as data sets lay them out."""
