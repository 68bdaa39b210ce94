"""Dense optical flow, shared by every source that needs it."""
