"""From a day's samples to a verdict: does anything grow, do the books add up, is anything given twice?"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.ros_tools.soak.day import Course, Sample

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MOST_SLOPE = 0.1  # MiB per simulated hour, after the first quarter
COLUMNS = [item.name for item in fields(Sample)]


@dataclass
class Verdict:
    """`faults`: what is wrong, one line each; empty if nothing is."""

    text: str
    faults: list[str]


def slope(hours: NDArray[np.floating], values: NDArray[np.floating]) -> tuple[float, float]:
    """Growth per hour by least squares, and its standard error. The samples are taken for independent."""
    centred = hours - hours.mean()
    spread = float((centred**2).sum())
    if len(hours) < 3 or spread == 0.0:
        return 0.0, float("inf")
    growth = float((centred * values).sum() / spread)
    rest = values - values.mean() - growth * centred
    return growth, float(np.sqrt((rest**2).sum() / (len(hours) - 2) / spread))


def judge(course: Course, statuses: int, unbalanced: int) -> Verdict:
    """The verdict on a day; `unbalanced` of `statuses` books did not add up."""
    data = np.array([sample.row() for sample in course.samples])
    column = {name: data[:, number] for number, name in enumerate(COLUMNS)}
    settled = column["hours"] >= 0.25 * column["hours"][-1]
    growth, error = slope(column["hours"][settled], column["rss_mib"][settled])
    faults = [f"{text} ({count} times)" for text, count in _counted(course.failures)]
    if unbalanced:
        faults.append(f"{unbalanced} of {statuses} statuses do not add up")
    if course.ids_reused:
        faults.append(f"ids of points were used again after {course.ids_reused} activations")
    if growth > MOST_SLOPE:
        faults.append(f"memory grows by {growth:.2f} +- {error:.2f} MiB per simulated hour, at most {MOST_SLOPE}")
    for name in ("files", "threads"):
        late, early = column[name][-max(1, len(data) // 4) :], column[name][settled][: max(1, len(data) // 4)]
        if np.median(late) > np.median(early) + 2:
            faults.append(f"open {name} grow: {np.median(early):.0f} to {np.median(late):.0f}")
    own = slope(column["hours"][settled], column["own_mib"][settled])
    return Verdict(_text(course, column, settled, ((growth, error), own), statuses), faults)


def _text(
    course: Course,
    column: dict[str, NDArray[np.floating]],
    settled: NDArray[np.bool_],
    growth: tuple[tuple[float, float], tuple[float, float]],
    statuses: int,
) -> str:
    happened = ", ".join(f"{name} {count}" for name, count in sorted(course.events.items()))
    live = ", ".join(
        f"{name} {1e3 * np.nanmedian(column[f'live_{name}_s'][settled]):.0f} ms" for name in ("p50", "p95", "p99")
    )
    rss = column["rss_mib"][settled]
    slopes = [f"{each:+.2f} +- {error:.2f} MiB" for each, error in growth]
    return (
        f"{column['hours'][-1]:.2f} simulated hours at 10 Hz ({course.sent} frames) in {column['real_s'][-1] / 60:.0f} "
        f"minutes; {statuses} statuses, {_windows(column['windows']):.0f} windows.\n"
        f"After the first quarter: memory {rss.min():.1f} to {rss.max():.1f} MiB, slope {slopes[0]} per "
        f"simulated hour ({slopes[1]} without pages of libraries and what is shared with others);\n"
        f"open files {column['files'][settled].min():.0f} to "
        f"{column['files'][settled].max():.0f}, threads {column['threads'][settled].min():.0f} to "
        f"{column['threads'][settled].max():.0f}; image to live {live} (medians over minutes).\n"
        f"What happened: {happened}."
    )


def _windows(counts: NDArray[np.floating]) -> float:
    """How many were fitted in all; the counter begins anew with each activation."""
    steps = np.diff(counts, prepend=0.0)
    return float(np.where(steps < 0, counts, steps).sum())


def _counted(texts: list[str]) -> list[tuple[str, int]]:
    return [(text, texts.count(text)) for text in dict.fromkeys(texts)]


def plot(course: Course, path: Path) -> None:
    """Memory, files and threads, and latencies over simulated hours."""
    data = np.array([sample.row() for sample in course.samples])
    column = {name: data[:, number] for number, name in enumerate(COLUMNS)}
    figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True, constrained_layout=True)
    axes[0].plot(column["hours"], column["rss_mib"], color="#2e86de", label="resident")
    axes[0].plot(column["hours"], column["own_mib"], color="#8e44ad", label="its own")
    axes[0].set_ylabel("memory, MiB")
    axes[0].set_ylim(0, None)
    for name, colour in (("files", "#333333"), ("threads", "#e2583e")):
        axes[1].plot(column["hours"], column[name], label=name, color=colour)
    axes[1].set_ylim(0, None)
    for name in ("p50", "p95", "p99"):
        axes[2].plot(column["hours"], column[f"live_{name}_s"], label=name)
    axes[2].set_ylabel("image to live, s")
    axes[2].set_ylim(0, None)
    axes[2].set_xlabel("simulated hours")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes:
        axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
