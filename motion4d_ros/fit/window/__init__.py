"""The frames that are being worked on, what is kept of older ones, and how the work keeps the camera's pace."""
