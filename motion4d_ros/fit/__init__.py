"""A window and the scene in, a better scene out: what Motion4D does with every window of frames."""
