"""What is known of depth and motion before a single Gaussian is rendered."""
