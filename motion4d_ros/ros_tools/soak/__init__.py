"""A day of a robot in hours: the real node over real DDS, everything that happens to one, and a verdict on growth."""
