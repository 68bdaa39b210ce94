"""Measuring with a camera alone: tables that are updated clip by clip, and one clip from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.evaluation import monocular
from motion4d_ros.types import Motion4DError


def rows_of(clip: str, figure: str) -> dict[str, list[list[str]]]:
    return {title: [[clip, *[figure] * (len(head) - 1)]] for title, head in monocular.HEADS.items()}


def test_rows_of_other_clips_stay_in_the_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nWords.\n\n<!-- tables -->\n")
    for clip, figure in (("tennis", "1"), ("car_shadow", "2"), ("tennis", "3")):
        monocular._write(page, clip, rows_of(clip, figure))
    text = page.read_text()
    assert text.startswith("# Title\n\nWords.\n") and text.count("### ") == len(monocular.HEADS)
    for head in monocular.HEADS.values():
        line = " | ".join(["| car_shadow", *["2"] * (len(head) - 1)]) + " |"
        assert line in text and line.replace("car_shadow", "tennis").replace("2", "3") in text
    assert "| 1 |" not in text


def test_an_object_counts_as_found_with_the_first_mask_that_fits() -> None:
    truth = np.zeros((5, 20, 20), np.int32)
    truth[1:, 5:15, 5:15] = 2
    online = np.zeros_like(truth)
    online[2, 0:20] = 7  # far too large
    online[3, 6:15, 5:15] = 7
    assert monocular.first_found(online, truth, 2) == "2"
    assert monocular.first_found(np.zeros_like(online), truth, 2) == "never"


def test_unknown_clips_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(Motion4DError, match="no such clip"):
        monocular.load_clip("nothing", tmp_path, 3)
    with pytest.raises(Motion4DError, match="no such clip"):
        monocular.load_clip("pillar:one", tmp_path, 3)


def test_presets_come_with_other_seeds() -> None:
    one, other = (monocular.load_clip(name, Path(), 1) for name in ("pillar", "pillar:5"))
    assert one.name == "pillar" and other.name == "pillar:5"
    assert (one.frames[0].image != other.frames[0].image).any()


@pytest.mark.slow
def test_a_clip_from_end_to_end() -> None:
    rows = monocular.measure(monocular.load_clip("leave_return", Path(), 9), Config(), with_engine=True)
    masks, poses, tracks = rows.values()
    assert [row[1] for row in masks] == ["prompt, alone", "motion, alone", "prompt, engine", "motion, engine"]
    assert float(masks[0][3]) > 0.9 and poses[0][1] == "unknown" and len(tracks) == 2
