"""Sources of depth."""
