"""What others reach, as they published it. Only figures whose source is named; nobody's were measured here."""

from __future__ import annotations

from dataclasses import dataclass

MOTION4D = "Zhou & Lee, Motion4D, NeurIPS 2025, arXiv 2512.03601"
TAPNEXT = "Zholus et al., TAPNext, https://tap-next.github.io"


@dataclass(frozen=True)
class Published:
    """One row: figures by column."""

    method: str
    figures: dict[str, float]
    source: str


def _tracking(method: str, mode: str, AJ: float, davg: float, OA: float) -> Published:
    figures = {f"{mode} AJ": AJ / 100, f"{mode} davg": davg / 100, f"{mode} OA": OA / 100}
    return Published(method, figures, f"{MOTION4D}; put under {mode}, which was not checked")


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "davis2017": (
        Published("SAM 2", {"J&F": 0.907}, MOTION4D),
        Published("Motion4D (offline, with SAM 2)", {"J&F": 0.908}, MOTION4D),
    ),
    "tapvid-davis": (
        _tracking("CoTracker3", "first", 64.4, 76.9, 91.2),
        _tracking("Shape of Motion (offline)", "first", 62.3, 76.2, 87.1),
        _tracking("Motion4D (offline)", "first", 64.4, 77.7, 90.4),
        Published("CoTracker3", {"first AJ": 0.638}, TAPNEXT),
        Published("TAPNext", {"first AJ": 0.652}, TAPNEXT),
    ),
    "dycheck": (
        Published("CoTracker3", {"AJ": 0.310, "davg": 0.444, "OA": 0.799}, MOTION4D),
        Published("TAPIR + depth", {"EPE": 0.114, "d05": 0.381, "d10": 0.632}, MOTION4D),
        Published(
            "Shape of Motion (offline)",
            {"AJ": 0.344, "davg": 0.470, "OA": 0.866, "EPE": 0.082, "d05": 0.430, "d10": 0.733}
            | {"mPSNR": 16.72, "mSSIM": 0.63, "mLPIPS": 0.45},
            MOTION4D,
        ),
        Published(
            "Motion4D (offline)",
            {"AJ": 0.373, "davg": 0.504, "OA": 0.871, "EPE": 0.072, "d05": 0.467, "d10": 0.759}
            | {"mPSNR": 17.91, "mSSIM": 0.69, "mLPIPS": 0.42},
            MOTION4D,
        ),
    ),
}
"""Benchmark -> rows of others."""
