"""Labels of pixels and Gaussians: the posterior over raters, identities over time, masks at every size."""
