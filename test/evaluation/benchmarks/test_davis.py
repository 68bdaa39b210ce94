"""DAVIS: its files, its protocol by hand, and against another implementation of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from data_sets import write_davis, write_image

from motion4d_ros.evaluation.benchmarks.davis import Davis, davis_figures
from motion4d_ros.evaluation.benchmarks.interfaces import NOTHING, Place
from motion4d_ros.evaluation.metrics.segmentation import boundary_f, region_j
from motion4d_ros.types import Motion4DError


def clip(frames: int = 5) -> np.ndarray:
    """Two squares, ids 1 and 2; the second is hidden in frame 3."""
    ids = np.zeros((frames, 40, 60), np.int64)
    for t in range(frames):
        ids[t, 5:15, 5 + t : 15 + t] = 1
        if t != 3:
            ids[t, 20:32, 30:42] = 2
    return ids


def save(folder: Path, ids: np.ndarray) -> None:
    for t, mask in enumerate(ids):
        write_image(folder / "masks" / f"{t:06d}.png", mask.astype(np.uint16))


def test_first_and_last_frames_are_not_judged_and_absence_counts() -> None:
    truth = clip()
    found = truth.copy()
    found[0] = found[4] = 0  # not judged
    assert davis_figures(found, truth) == {"J&F": 1.0, "J": 1.0, "F": 1.0, "objects": 2}
    found[2][found[2] == 1] = 0  # object 1 lost in one of the three judged frames
    found[3, 20:22, 30:32] = 2  # object 2 seen where it is hidden
    assert davis_figures(found, truth)["J"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    found = truth.copy()
    found[1, 5:15, 6:11] = 0  # half of object 1
    assert davis_figures(found, truth)["J"] == pytest.approx((2.5 / 3 + 1) / 2)


def test_ids_are_not_matched() -> None:
    truth = clip()
    swapped = np.select([truth == 1, truth == 2], [2, 1], 0)
    assert davis_figures(swapped, truth)["J"] == 0.0


def test_files_of_2017_and_of_2016(tmp_path: Path) -> None:
    write_davis(tmp_path, {"dogs": clip(), "cat": clip()})
    benchmark = Davis(2017)
    assert benchmark.sequences(tmp_path) == ["dogs", "cat"], "the list's order"
    given = tmp_path / "given"
    words = benchmark.prepare(Place(tmp_path, "dogs"), given)
    assert words[0] == str(tmp_path / "JPEGImages/480p/dogs") and words[-1] == str(given / "first.png")
    assert np.array_equal(cv2.imread(words[-1], cv2.IMREAD_UNCHANGED), clip()[0])
    assert "--prompt-mask" not in benchmark.prepare(Place(tmp_path, "dogs", given=NOTHING), given)
    save(tmp_path / "out", clip())
    assert benchmark.score(Place(tmp_path, "dogs"), tmp_path / "out")["J&F"] == 1.0
    old = tmp_path / "old"
    write_davis(old, {"bear": (clip() > 0) * 255})
    (old / "ImageSets/2017/val.txt").unlink()
    listing = old / "ImageSets/480p/val.txt"
    listing.parent.mkdir()
    listing.write_text("/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png\n" * 2, encoding="utf-8")
    assert Davis(2016).sequences(old) == ["bear"]
    save(tmp_path / "both", clip())  # two ids for what 2016 calls one object
    nothing = Davis(2016).score(Place(old, "bear", given=NOTHING), tmp_path / "both")
    assert nothing["J"] == 1.0 and nothing["objects"] == 1
    assert Davis(2016).score(Place(old, "bear"), tmp_path / "both")["J"] < 1.0, "with a prompt, id 1 is the object"


def test_limits_and_clips_in_folders_of_their_own(tmp_path: Path) -> None:
    for t, mask in enumerate(clip()):
        write_image(tmp_path / f"swan/truth/{t:05d}.png", (mask == 1).astype(np.uint8) * 255)
        write_image(tmp_path / f"swan/images/{t:05d}.jpg", np.zeros((*mask.shape, 3), np.uint8))
    (tmp_path / "other" / "images").mkdir(parents=True)  # no truth
    assert Davis(2016).sequences(tmp_path) == ["swan"]
    save(tmp_path / "out", (clip() == 1)[:4].astype(np.int64))
    assert Davis(2016).score(Place(tmp_path, "swan", limit=4), tmp_path / "out")["J"] == 1.0
    with pytest.raises(Motion4DError, match="every frame counts"):
        Davis(2016).score(Place(tmp_path, "swan"), tmp_path / "out")


def test_the_mean_is_over_objects() -> None:
    rows = [{"J": 0.5, "F": 0.5, "J&F": 0.5, "objects": 3}, {"J": 0.9, "F": 0.7, "J&F": 0.8, "objects": 1}]
    assert Davis(2017).mean(rows) == pytest.approx({"J": 0.6, "F": 0.55, "J&F": 0.575, "objects": 4})


def test_against_trackeval() -> None:
    reference = pytest.importorskip("trackeval.metrics.j_and_f", reason="trackeval is installed on demand")
    masks = pytest.importorskip("pycocotools.mask", reason="trackeval reads masks by pycocotools")
    rng = np.random.default_rng(5)
    for _ in range(4):
        shape = (90, 120)
        blobs = [cv2.GaussianBlur(rng.normal(size=shape), (0, 0), 6) > 0.02 for _ in range(2)]
        truth, found = (np.asfortranarray(blob.astype(np.uint8)) for blob in blobs)
        one, other = masks.encode(found), masks.encode(truth)
        data = {
            "num_timesteps": 1, "num_tracker_ids": 1, "num_gt_ids": 1, "gt_dets": [[other]], "tracker_dets": [[one]],
            "gt_ids": [[0]], "tracker_ids": [[0]], "seq": "x",
        }  # fmt: skip
        theirs = reference.JAndF().eval_sequence(data)
        assert region_j(blobs[1], blobs[0]) == pytest.approx(float(theirs["J-Mean"]), abs=1e-9)
        assert boundary_f(blobs[1], blobs[0]) == pytest.approx(float(theirs["F-Mean"]), abs=1e-6)
