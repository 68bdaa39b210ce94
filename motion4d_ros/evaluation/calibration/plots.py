"""Pictures of consistency and reliability."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from motion4d_ros.evaluation.calibration.consistency import QUANTITIES, Row
from motion4d_ros.evaluation.calibration.reliability import Forecasts

STAGES = ("live", "window", "global")


def draw(rows: list[Row], probabilities: dict[str, Forecasts], folder: Path) -> None:
    """Writes ``nees.png`` and ``reliability.png`` into `folder`. Raises `OSError`."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # after the back end has been chosen

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, len(QUANTITIES), figsize=(10, 3), sharey=True)
    for axis, name in zip(axes, QUANTITIES, strict=True):
        for place, stage in enumerate(STAGES):
            values = [row.nees[name] for row in rows if row.stage == stage and row.state == "tracked"]
            axis.scatter(np.full(len(values), place), values, s=14, alpha=0.7)
        axis.axhspan(0.5, 2.0, color="tab:green", alpha=0.15)
        axis.set(title=name, yscale="log", xticks=range(len(STAGES)), xticklabels=STAGES)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("squared error / stated variance")
    figure.savefig(folder / "nees.png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    figure, axes = plt.subplots(1, len(probabilities), figsize=(3.3 * len(probabilities), 3.2), squeeze=False)
    for axis, (kind, each) in zip(axes[0], sorted(probabilities.items()), strict=True):
        share, probability, true = np.array(each.bins()).T
        axis.plot([0, 1], [0, 1], color="grey", linewidth=1)
        axis.scatter(probability, true, s=12 + 300 * share, alpha=0.7)
        axis.set(title=f"{kind}: ECE {each.error:.3f}", xlabel="probability", xlim=(0, 1.02), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("came true")
    figure.savefig(folder / "reliability.png", dpi=110, bbox_inches="tight")
    plt.close(figure)
