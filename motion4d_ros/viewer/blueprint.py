"""How the viewer is laid out at first: the scene beside the picture, plots below."""

from __future__ import annotations

from typing import Any

import numpy as np

from motion4d_ros.types import FloatArray

WORLD = "world"
STATIC = f"{WORLD}/static"
CAMERA = f"{WORLD}/camera"
IMAGE = f"{CAMERA}/image"
MASKS = f"{IMAGE}/masks"
TRACKS_2D, TRAILS_2D = f"{IMAGE}/tracks", f"{IMAGE}/trails"
POINTS = f"{WORLD}/moving"
TRACKS, TRAILS = f"{WORLD}/tracks", f"{WORLD}/trails"
BOXES, VELOCITIES, UNCERTAINTY = f"{WORLD}/boxes", f"{WORLD}/velocities", f"{WORLD}/uncertainty"
SPEED, COST, MEMORY = "speed", "cost/seconds", "cost/memory"
LATENCY, HEALTH, FINDINGS = "latency", "health", "findings"
TIMELINE, FRAMES = "image_time", "frame"

_BEHIND = 0.45  # of the distance to what is looked at: how far the eye stands behind the camera
_ABOVE = 0.45


def blueprint(T_map_cam: FloatArray, up: FloatArray, distance: float, unit: str, *, node: bool = False) -> Any:
    """The layout. The eye stands behind and above the camera `T_map_cam` (4, 4), and looks at what lies `distance`
    ahead of it; `up` (3,) is the map's, `unit` the name of its lengths. A running `node` plots latency and health in
    the place of the cost.
    """
    import rerun.blueprint as rrb

    position, ahead = T_map_cam[:3, 3], T_map_cam[:3, 2]
    eye = position - _BEHIND * distance * ahead + _ABOVE * distance * up
    controls = rrb.EyeControls3D(position=eye, look_target=position + distance * ahead, eye_up=up)
    scene = rrb.Spatial3DView(
        origin=WORLD,
        name="Scene",
        contents=["$origin/**", f"- {TRACKS_2D}", f"- {TRAILS_2D}"],  # drawn once, where they are in 3D
        eye_controls=controls,
        line_grid=False,
        background=np.array([16, 18, 22], np.uint8),
    )
    image = rrb.Spatial2DView(origin=IMAGE, name="Image, masks, tracks")
    speeds = rrb.TimeSeriesView(origin=SPEED, name=f"Speed of each object, {unit}/s")
    plots = [speeds, rrb.TimeSeriesView(origin=COST, name="Computing, s a frame")]
    shares = [3, 2]
    if node:
        latency = rrb.TimeSeriesView(origin=LATENCY, name="Latency, s")
        health = rrb.Tabs(
            rrb.TimeSeriesView(origin=HEALTH, name="Health"), rrb.TextLogView(origin=FINDINGS, name="What is wrong")
        )
        plots, shares = [speeds, latency, health], [2, 1, 1]
    return rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(scene, image, column_shares=[3, 2]),
            rrb.Horizontal(*plots, column_shares=shares),
            row_shares=[3, 1],
        ),
        rrb.TimePanel(state="collapsed", timeline=TIMELINE),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        auto_views=False,
    )
