"""A scene kept to go on from after a crash: what is kept, whether it is what the camera sees, and back into use."""
