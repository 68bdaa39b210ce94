"""`motion4d render`: a saved scene seen from other places and at other times, as videos, images and `.ply` files."""
