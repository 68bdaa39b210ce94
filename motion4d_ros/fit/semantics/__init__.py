"""Labels of pixels and Gaussians: votes, identities over time, fusion and refinement of masks."""
