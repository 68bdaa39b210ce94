"""What finds objects: proposals of what moves, without a prompt or a network, and of what a detector sees."""
