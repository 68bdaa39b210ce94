"""What is analysed and how it is measured: one class per kind of recording."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.evaluation import synthetic
from motion4d_ros.evaluation.score import (
    Scores,
    Truth,
    load_result,
    load_truth,
    read_masks,
    read_true_masks,
    score_labels,
    score_priors,
    score_result,
)
from motion4d_ros.evaluation.suite.novel_view import score_novel_views
from motion4d_ros.evaluation.synthetic import PRESETS, degrade_masks, make_scene, write_bag

BAG_TOPICS = (
    *("--image", "/camera/image_raw", "--camera-info", "/camera/camera_info", "--depth", "/camera/depth"),
    *("--masks", "/camera/mask", "--odometry", "/odom"),
)
ABLATION_CASES = ("tabletop", "static_camera", "bounce", "bending")


class Case(Protocol):
    """A recording, how to analyse it, and how to measure the result."""

    name: str
    group: str  # which table: "scenes", "clips" or "rgbd"

    def missing(self) -> str:
        """Why it cannot be run on this machine; empty if it can."""

    def prepare(self, folder: Path) -> None:
        """Writes what the analysis reads into the existing `folder`; quick where it is already there."""

    def arguments(self, folder: Path) -> list[str]:
        """Arguments of `motion4d analyze` but `--out`."""

    def inputs_alone(self, folder: Path) -> Scores | None:
        """Scores of what the inputs alone give, None if that means nothing here."""

    def measure(self, folder: Path, out: Path) -> dict[str, Scores]:
        """Scores of an analysis by name: "online", "final"."""


@dataclass
class SharedScene:
    """A scene with a bag and exact truth that lies beside the repository."""

    name: str
    source: Path
    limit: int | None = None  # frames
    group: str = "scenes"

    def missing(self) -> str:
        return "" if (self.source / "gt.npz").is_file() else f"{self.source} is absent"

    def prepare(self, folder: Path) -> None:
        np.save(folder / "queries.npy", self._truth(folder)["queries"])

    def arguments(self, folder: Path) -> list[str]:
        words = [str(self.source / "bag"), *BAG_TOPICS, "--queries", str(folder / "queries.npy")]
        return words if self.limit is None else [*words, "--limit", str(self.limit)]

    def inputs_alone(self, folder: Path) -> Scores | None:
        return score_priors(self._truth(folder))

    def measure(self, folder: Path, out: Path) -> dict[str, Scores]:
        return _measure_scene(self._truth(folder), out)

    def _truth(self, folder: Path) -> Truth:
        return first_frames(load_truth(self.source), self.limit)


@dataclass
class SyntheticScene:
    """A scene of our own, rendered on first use."""

    name: str
    seed: int = 0
    frames: int = 48
    group: str = "scenes"

    def missing(self) -> str:
        return ""

    def prepare(self, folder: Path) -> None:
        made_by = folder / "made_by.txt"
        recipe = f"{self.name} {self.seed} {self.frames} {_digest(Path(synthetic.__file__).parent)}"
        if made_by.is_file() and made_by.read_text() == recipe:
            return
        _remove_bag(folder / "bag")
        scene = make_scene(self.name, self.seed, self.frames)
        scene.save_npz(folder / "gt.npz")
        write_bag(scene, folder / "bag")
        made_by.write_text(recipe)

    def arguments(self, folder: Path) -> list[str]:
        return [str(folder / "bag"), *BAG_TOPICS, "--queries", str(folder / "queries.npy")]

    def inputs_alone(self, folder: Path) -> Scores | None:
        return score_priors(load_truth(folder))

    def measure(self, folder: Path, out: Path) -> dict[str, Scores]:
        return _measure_scene(load_truth(folder), out)


@dataclass
class Clip:
    """A real video with a true mask per frame; the masks given are degraded, or only the first one is."""

    name: str
    source: Path  # folder with images/ and masks/
    given: str  # "degraded": a mask with every frame; "first": the first one only
    limit: int | None = None
    group: str = "clips"
    settings: list[str] = field(default_factory=list)  # key=value

    def missing(self) -> str:
        return "" if (self.source / "masks").is_dir() else f"{self.source} is absent"

    def prepare(self, folder: Path) -> None:
        truth = self._truth()
        if self.given == "first":
            cv2.imwrite(str(folder / "first.png"), truth[0].astype(np.uint16))
            return
        (folder / "masks").mkdir(exist_ok=True)
        for k, labels in enumerate(degrade_masks(truth, np.random.default_rng(0))):
            cv2.imwrite(str(folder / "masks" / f"{k:06d}.png"), labels)

    def arguments(self, folder: Path) -> list[str]:
        words = [str(self.source / "images"), "--limit", str(len(self._truth()))]
        for setting in self.settings:
            words += ["--set", setting]
        if self.given == "first":
            return [*words, "--prompt-mask", str(folder / "first.png")]
        return [*words, "--masks", str(folder / "masks")]

    def inputs_alone(self, folder: Path) -> Scores | None:
        if self.given == "first":
            return None
        return score_labels(read_masks(folder), self._truth().astype(np.int64))

    def measure(self, folder: Path, out: Path) -> dict[str, Scores]:
        truth = self._truth().astype(np.int64)
        return {
            "online": score_labels(read_masks(out / "online"), truth),
            "final": score_labels(read_masks(out), truth),
        }

    def _truth(self) -> NDArray[np.uint16]:
        labels = read_true_masks(self.source / "masks")[: self.limit]
        return (labels > 0).astype(np.uint16)  # one object in each clip


@dataclass
class RgbdSequence:
    """A static room filmed in colour and depth: even frames are analysed, odd ones are rendered and compared."""

    name: str
    source: Path  # frame-*.color.jpg, .depth.png (uint16 mm), .pose.txt (camera to world)
    limit: int | None = None  # frames analysed
    group: str = "rgbd"

    def missing(self) -> str:
        return "" if (self.source / "camera-intrinsics.txt").is_file() else f"{self.source} is absent"

    def prepare(self, folder: Path) -> None:
        for k, stem in enumerate(self.stems()[0::2]):
            for kind in ("color.jpg", "depth.png", "pose.txt"):
                place = folder / kind.split(".")[0] / f"{k:06d}.{kind.split('.')[1]}"
                place.parent.mkdir(exist_ok=True)
                if kind == "depth.png":
                    cv2.imwrite(str(place), self.depth_mm(stem))
                else:
                    place.write_bytes((self.source / f"{stem}.{kind}").read_bytes())

    def arguments(self, folder: Path) -> list[str]:
        K = self.intrinsics()
        return [
            *(str(folder / "color"), "--depth", str(folder / "depth"), "--poses", str(folder / "pose")),
            *("--intrinsics", f"{K[0, 0]},{K[1, 1]},{K[0, 2]},{K[1, 2]}", "--set", "masks.source=none"),
        ]

    def inputs_alone(self, folder: Path) -> Scores | None:
        return None  # `measure` compares with the neighbouring frame instead

    def measure(self, folder: Path, out: Path) -> dict[str, Scores]:
        return score_novel_views(self, out)

    def stems(self) -> list[str]:
        """Names of the frames in order, without their endings."""
        stems = sorted(path.name.removesuffix(".color.jpg") for path in self.source.glob("*.color.jpg"))
        return stems if self.limit is None else stems[: 2 * self.limit]

    def intrinsics(self) -> NDArray[np.float64]:
        """(3, 3) px."""
        return np.loadtxt(self.source / "camera-intrinsics.txt")

    def depth_mm(self, stem: str) -> NDArray[np.uint16]:
        """(H, W); 0 = unknown (the sensor says 65535)."""
        depth = np.asarray(cv2.imread(str(self.source / f"{stem}.depth.png"), cv2.IMREAD_UNCHANGED), np.uint16)
        return np.where(depth == 65535, 0, depth).astype(np.uint16)


def shared_data() -> Path:
    """Where the shared data lies: ``MOTION4D_SHARED``, or beside the working directory."""
    return Path(os.environ.get("MOTION4D_SHARED", "../shared")) / "data"


def all_cases(shared: Path, quick: bool) -> list[Case]:
    """Every recording of the suite. `shared` is the folder ``../shared/data``; `quick` halves or more the frames."""
    frames, limit = (16, 16) if quick else (48, None)
    cases: list[Case] = [SharedScene(name, shared / "scenes" / name, limit) for name in ("tabletop", "static_camera")]
    cases += [SyntheticScene(name, frames=frames) for name in PRESETS]
    for name in ("car_shadow", "tennis"):
        cases.append(Clip(name, shared / name, "degraded", limit))
        cases.append(Clip(f"{name}_one_mask", shared / name, "first", limit))
    cases.append(RgbdSequence("seven_scenes", shared / "seven_scenes", limit))
    return cases


def first_frames(truth: Truth, count: int | None) -> Truth:
    """The truth of the first `count` frames (None: all), with the queries asked in them."""
    if count is None or count >= len(truth["masks"]):
        return truth
    asked = truth["queries"][:, 0] < count
    cut = {name: truth[name][:count] for name in ("images", "masks", "depth", "T_wc", "in_masks", "in_depth")}
    tracks = {name: truth[name][asked, :count] for name in ("tracks_xyz", "tracks_yx", "visible")}
    rest = {"queries": truth["queries"][asked], "query_object": truth["query_object"][asked], "K": truth["K"]}
    return {**cut, **tracks, **rest}


def _measure_scene(truth: Truth, out: Path) -> dict[str, Scores]:
    return {
        "online": score_result(truth, load_result(out / "online")),
        "final": score_result(truth, load_result(out)),
    }


def _digest(package: Path) -> str:
    content = b"".join(path.read_bytes() for path in sorted(package.glob("*.py")))
    return hashlib.sha256(content).hexdigest()[:16]


def _remove_bag(bag: Path) -> None:
    for name in ("bag.mcap", "metadata.yaml"):
        (bag / name).unlink(missing_ok=True)
    if bag.is_dir():
        bag.rmdir()
