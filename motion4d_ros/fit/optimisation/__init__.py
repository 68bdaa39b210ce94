"""Gradient steps on the scene: targets, losses, training loop, new Gaussians and pruned ones."""
