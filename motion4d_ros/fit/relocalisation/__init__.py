"""Objects that were lost: found again by features or by how they look; drift noticed."""
