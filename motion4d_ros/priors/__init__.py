"""What 2D sources say about a frame. Each kind is one small Protocol (`interfaces.py`) with several sources."""
