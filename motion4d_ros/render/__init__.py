"""Gaussian splatting: one function, three back ends.

* ``cpu``: the C++ library in `raster/`, float32, threads and SIMD.
* ``gsplat``: CUDA, for tensors on a GPU.
* ``reference``: PyTorch only, any dtype; slow, the definition of what the other two must give.
"""

from motion4d_ros.render.output import RenderOutput
from motion4d_ros.render.render import BACKENDS, render

__all__ = ["BACKENDS", "RenderOutput", "render"]
