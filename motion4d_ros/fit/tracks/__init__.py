"""Points of the scene and of objects, measured from keyframes in every frame within reach."""
