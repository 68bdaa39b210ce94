"""Scene -> tracked objects: oriented boxes, twists with covariance, life cycle, persistent identities."""
