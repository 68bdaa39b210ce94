"""Recordings in, files out: bags, videos and image folders through the same engine as the live node."""
