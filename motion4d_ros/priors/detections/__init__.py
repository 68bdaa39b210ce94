"""What detects things in each frame, where nobody else says so: one file for each source."""
