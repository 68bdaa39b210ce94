"""The 4D scene: canonical Gaussians, motion bases, and the optimiser state that follows them when they come and go."""
