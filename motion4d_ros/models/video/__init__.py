"""Networks that follow prompted objects through a video, fed frame by frame: the package `sam2`, and `transformers`."""
