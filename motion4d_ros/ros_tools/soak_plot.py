"""The picture of a soak: memory over time, and the frames beside it."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def plot(path: Path, data: NDArray[np.floating]) -> None:
    """`data` has rows of minutes, resident MB, received, dropped, open files and threads."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, constrained_layout=True)
    top.plot(data[:, 0], data[:, 1], color="#2e86de")
    top.set_ylabel("resident memory, MB")
    top.set_ylim(0, None)
    bottom.plot(data[:, 0], data[:, 2], label="received", color="#333333")
    bottom.plot(data[:, 0], data[:, 3], label="dropped", color="#e2583e")
    bottom.set_ylabel("frames")
    bottom.set_xlabel("minutes")
    bottom.legend(frameon=False)
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
