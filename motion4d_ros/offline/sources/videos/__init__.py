"""Videos as recordings."""
