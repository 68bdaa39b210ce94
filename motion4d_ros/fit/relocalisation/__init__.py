"""Objects that were lost or led astray: hypotheses of where they are, and the evidence for each."""
