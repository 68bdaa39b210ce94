"""A procedural scene of our own: ray-cast moving things with exact truth, and inputs degraded as networks degrade them.

scene = make_scene("bounce", seed=3)
for frame in scene.frames(): ...
scene.save_npz(Path("out/gt.npz"))
write_bag(scene, Path("out/bag"))
"""

from motion4d_ros.evaluation.synthetic.bag import write_bag
from motion4d_ros.evaluation.synthetic.degrade import DepthFaults, MaskFaults, degrade_depth, degrade_masks
from motion4d_ros.evaluation.synthetic.presets import PRESETS, make_scene
from motion4d_ros.evaluation.synthetic.scene import SyntheticScene
from motion4d_ros.evaluation.synthetic.unsteady import UNSTEADY

__all__ = [
    "PRESETS",
    "UNSTEADY",
    "DepthFaults",
    "MaskFaults",
    "SyntheticScene",
    "degrade_depth",
    "degrade_masks",
    "make_scene",
    "write_bag",
]
