"""Is what is said of uncertainty true? Covariances and probabilities against scenes whose truth is known."""
