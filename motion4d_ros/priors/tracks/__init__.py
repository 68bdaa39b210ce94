"""Sources of point tracks."""
