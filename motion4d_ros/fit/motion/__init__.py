"""The motion of every object: bundle adjustment, articulation, priors and prediction."""
