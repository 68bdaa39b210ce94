"""`motion4d doctor`: what this machine has of what matters, and what mends the rest.

Works where almost nothing is installed: nothing outside the standard library is imported here. What may crash or hang
(libraries, drivers) is tried out in processes of its own (`child`, `render.gpu_probe`), each for a bounded time.
"""
