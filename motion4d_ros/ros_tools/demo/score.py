"""How good was it? Masks and 3D tracks against the exact truth of the synthetic scene, at each stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.table import Table

from motion4d_ros.evaluation.metrics import score_masks
from motion4d_ros.evaluation.synthetic import SyntheticScene
from motion4d_ros.ros_tools.demo.results import STAGES, Cloud, Said

NEAR_M = 0.05
"""A tracked point this near to a true one when that is first seen is taken to follow it."""
FRAMES_APART = 4
ROW_NAMES = {
    "priors": "2D masks as given", "live": "live (at once)", "window": "window (fitted)", "final": "final (refined)",
}  # fmt: skip
"""What people call a row of the scores."""


@dataclass(frozen=True)
class Scores:
    """Figures of one stage; NaN where there is nothing to measure."""

    JF: float  # mean of J (overlap) and F (boundary), in [0, 1]
    flips: int  # changes of identity
    epe_m: float  # mean 3D error of the followed points
    d10: float  # share of them within 10 cm
    followed: float  # share of the true points that some tracked point follows
    told: float  # share of the frames about which the stage said anything: masks are scored on these


def score_stages(scene: SyntheticScene, said: Said) -> dict[str, Scores]:
    """Scores by name: "priors" (the masks as the 2D network gave them), then the stages."""
    frames = [int(stamp) for stamp in scene.stamps_ns]
    truth = scene.masks.astype(np.int64)
    given = score_masks(scene.in_masks.astype(np.int64), truth)
    table = {"priors": Scores(given.JF, given.flips, float("nan"), float("nan"), float("nan"), 1.0)}
    for stage in STAGES:
        told = [t for t, stamp in enumerate(frames) if stamp in said.masks[stage]]
        if not told:
            continue
        masks = np.stack([said.masks[stage][frames[t]] for t in told]).astype(np.int64)
        measured = score_masks(masks, truth[told])
        epe, d10, followed = _score_tracks(scene, [said.clouds[stage].get(stamp) for stamp in frames])
        table[stage] = Scores(measured.JF, measured.flips, epe, d10, followed, len(told) / len(frames))
    return table


def score_table(scores: dict[str, Scores]) -> Table:
    """The scores for the terminal."""
    table = Table(title="against the exact truth")
    table.add_column("", no_wrap=True)
    for column in ("told", "J&F", "id flips", "3D error", "<10 cm", "followed"):
        table.add_column(column, justify="right")
    for name, row in scores.items():
        error = "" if np.isnan(row.epe_m) else f"{100 * row.epe_m:.1f} cm"
        shares = ["" if np.isnan(share) else f"{100 * share:.0f} %" for share in (row.d10, row.followed)]
        table.add_row(ROW_NAMES[name], f"{100 * row.told:.0f} %", f"{row.JF:.3f}", str(row.flips), error, *shares)
    return table


def _score_tracks(scene: SyntheticScene, clouds: list[Cloud | None]) -> tuple[float, float, float]:
    """Follows true points of moving objects by the tracked point that is nearest when both are first there."""
    errors: list[float] = []
    moving = np.flatnonzero(scene.query_object > 0)
    followed = 0
    tables = [{} if c is None else dict(zip(c.point_id.tolist(), c.xyz_map, strict=True)) for c in clouds]
    for query in moving:
        start = _start(scene, int(query), clouds)
        if start is None:
            continue
        frame, point = start
        followed += 1
        for t in range(frame + FRAMES_APART, len(clouds), FRAMES_APART):
            if scene.visible[query, t] and point in tables[t]:
                errors.append(float(np.linalg.norm(tables[t][point] - scene.tracks_xyz[query, t])))
    if not errors:
        return float("nan"), float("nan"), followed / max(1, len(moving))
    return float(np.mean(errors)), float(np.mean(np.array(errors) < 0.1)), followed / len(moving)


def _start(scene: SyntheticScene, query: int, clouds: list[Cloud | None]) -> tuple[int, int] | None:
    for t in range(int(scene.queries[query, 0]), len(clouds)):
        cloud = clouds[t]
        if cloud is None or not len(cloud.point_id) or not scene.visible[query, t]:
            continue
        distance = np.linalg.norm(cloud.xyz_map - scene.tracks_xyz[query, t], axis=-1)
        nearest = int(distance.argmin())
        if distance[nearest] < NEAR_M:
            return t, int(cloud.point_id[nearest])
    return None
