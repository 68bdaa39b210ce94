"""`make eval`: analyses of shared, synthetic and real recordings, scored beside their inputs alone, with ablations."""
