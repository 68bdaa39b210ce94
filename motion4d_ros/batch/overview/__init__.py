"""What is told of a batch: progress on the terminal; at the end the summary's files and one page over all."""
