"""From the fitted scene to estimates, views and query tracks."""
