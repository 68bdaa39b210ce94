"""What moves? Masks of moving things found without a prompt or a network."""
