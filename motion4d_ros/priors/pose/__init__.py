"""Sources of camera poses."""
