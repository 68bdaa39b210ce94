"""Sources of object masks."""
