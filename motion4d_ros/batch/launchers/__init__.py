"""Where recordings are analysed: a Ray cluster (this machine alone is one, too), or Slurm."""
