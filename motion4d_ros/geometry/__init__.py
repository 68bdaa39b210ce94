"""Pure functions of image and multi-view geometry: arrays in, arrays out."""
