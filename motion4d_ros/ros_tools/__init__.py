"""Around the node: demo, benchmark, bag player and recorder, and the generator of documents."""
