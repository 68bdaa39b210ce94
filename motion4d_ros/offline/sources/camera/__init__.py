"""Files about the camera: calibrations and poses, and whether they agree with depth."""
