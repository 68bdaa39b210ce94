"""What 2D sources say about a frame. Each kind is one small Protocol (`base.py`) with several sources."""
