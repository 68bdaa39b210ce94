"""`motion4d view` and `analyze --rerun`: results, and analyses while they run, in the viewer Rerun (extra `[view]`)."""
