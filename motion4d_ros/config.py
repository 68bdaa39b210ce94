"""Every tunable of the system, declared once: default, unit, range and meaning.

ROS parameters, YAML keys (`config/*.yaml`), `--set key=value` and the tables in `docs/reference/interface.md` all come
from here.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from motion4d_ros.tunables import Tunable, get, put, section, tunable, walk
from motion4d_ros.types import Motion4DError


@dataclass
class RunConfig:
    """Where and how the computation runs."""

    device: str = tunable(
        "auto",
        "Where the scene is fitted; auto = cuda where gsplat draws a test picture rightly there, else cpu",
        choices=("auto", "cpu", "cuda"),
    )
    threads: int = tunable(
        0,
        "Threads at work at once (rasteriser, OpenCV, geometry, networks); results don't depend on it; 0 = all cores",
        minimum=0,
        maximum=256,
    )
    seed: int = tunable(0, "Seed of every random choice", minimum=0, maximum=2**31 - 1)
    archive: bool = tunable(False, "Keep what leaves the horizon, so that points can be followed through the whole run")
    checkpoint: float = tunable(
        0.0,
        "The node keeps the scene so often in a file below save_root, to go on from after a crash; 0 = never",
        unit="s",
        minimum=0.0,
        maximum=86_400.0,
        changes="never",
    )


@dataclass
class BudgetConfig:
    """How much work is allowed."""

    mode: str = tunable(
        "lossless",
        "realtime: every frame gets a live estimate at once, as many are fitted as the camera's pace allows; "
        "lossless: every frame gets all its work",
        choices=("realtime", "lossless"),
    )
    load: float = tunable(
        0.7,
        "Share of the time between frames that fitting may use in realtime mode",
        minimum=0.05,
        maximum=1.0,
        changes="live",
    )
    queue_size: int = tunable(16, "Frames that may wait; the oldest is dropped when full", minimum=1, maximum=1000)
    max_static: int = tunable(20000, "Static Gaussians kept at most", minimum=100, maximum=2_000_000)
    max_dynamic: int = tunable(8000, "Moving Gaussians kept at most", minimum=100, maximum=1_000_000)
    working_width: int = tunable(
        320,
        "Images wider than this are fitted at this width (outputs keep the input's size); 0 = never shrink",
        unit="px",
        minimum=0,
        maximum=8192,
    )


@dataclass
class WindowConfig:
    """How frames are gathered."""

    length: int = tunable(8, "Frames fitted together as one window (L)", unit="frames", minimum=2, maximum=64)
    horizon: int = tunable(
        64, "Frames kept in the active scene; older times are archived", unit="frames", minimum=4, maximum=1024
    )
    global_every: int = tunable(
        3, "Windows between two global refinements; 0 = only at the end", minimum=0, maximum=1000
    )


@dataclass
class TracksConfig:
    """2D point tracks."""

    source: str = tunable(
        "flow",
        "Where 2D tracks come from: chained optical flow, or a neural point tracker (BootsTAPIR)",
        choices=("flow", "tapir"),
    )
    model: str = tunable(
        "auto", "Network behind source tapir: a name of `motion4d models list` or a path", changes="never"
    )
    spacing: int = tunable(
        8, "Distance between started tracks (half of it on objects)", unit="px", minimum=2, maximum=64
    )
    max_tracks: int = tunable(4000, "Tracks alive at most", minimum=50, maximum=100_000)
    forward_backward: float = tunable(
        1.0, "Largest forward-backward disagreement of the flow", unit="px", minimum=0.05, maximum=20.0
    )
    patch_difference: float = tunable(
        0.5, "Largest change of a track's patch in one step, as a share of its contrast", minimum=0.05, maximum=10.0
    )
    restart_every: int = tunable(
        8, "Frames between two fresh grids of tracks, traced backwards too", unit="frames", minimum=1, maximum=1000
    )


@dataclass
class MasksConfig:
    """2D object masks."""

    discovery: str = tunable(
        "motion",
        "What finds objects: motion against the static scene, a detector's boxes, or none: prompts alone",
        choices=("motion", "detections", "none"),
    )
    source: str = tunable(
        "propagation",
        "What outlines and follows them: propagation along the flow, without a network; sam_onnx, sam2, edgetam: a "
        "network; topic: ids given with every frame; none: no objects",
        choices=("propagation", "sam_onnx", "sam2", "edgetam", "topic", "none"),
        former={
            "motion": "masks.source=propagation with masks.discovery=motion, the defaults",
            "prompt": "masks.source=propagation with masks.discovery=none",
        },
    )
    fusion_reach: int = tunable(
        8,
        "Neighbouring frames, each way, whose masks are raters of a frame's labels",
        unit="frames",
        minimum=0,
        maximum=32,
    )
    fusion_width: int = tunable(
        960,
        "Labels of images wider than this are fused at this width (outputs keep the input's size); 0 = never shrink",
        unit="px",
        minimum=0,
        maximum=8192,
    )
    model: str = tunable(
        "auto",
        "Network behind sam_onnx, sam2 and edgetam: a name of `motion4d models list` or a path; auto = the source's "
        "default",
        changes="never",
    )
    image_size: int = tunable(
        0,
        "Side at which sam2 and edgetam look at images (a multiple of 32, of edgetam 256; 512 suits small machines); "
        "0 = as trained (1024)",
        unit="px",
        minimum=0,
        maximum=2048,
    )
    rigid_segmentation: bool = tunable(
        True,
        "discovery motion: tell rigid bodies apart by their motion over several frames, and correct masks in "
        "hindsight, where the static scene is well explained; costs .03 to .3 s a frame",
    )


@dataclass
class DetectionsConfig:
    """What a detector sees in each frame."""

    source: str = tunable(
        "given",
        "given: a topic or a file; onnx: a network of this node looks at frames that come without detections",
        choices=("given", "onnx"),
    )
    model: str = tunable(
        "auto",
        "Network behind source onnx (RT-DETR or YOLOX): a name of `motion4d models list` or an ONNX file",
        changes="never",
    )
    classes: str = tunable(
        "",
        "File with the names of its classes (one a line, or JSON); empty = the .txt or config.json beside the network, "
        "else COCO's",
        changes="never",
    )
    score: float = tunable(0.3, "Boxes of the network below this score are left out", minimum=0.0, maximum=1.0)
    every: int = tunable(1, "The network looks at every n-th frame", unit="frames", minimum=1, maximum=1000)


@dataclass
class DepthConfig:
    """Depth."""

    source: str = tunable(
        "geometry",
        "topic: given with every frame; geometry: triangulated from the camera's motion; model: a network",
        choices=("topic", "geometry", "none", "model"),
    )
    model: str = tunable(
        "auto",
        "Network behind source model: a name of `motion4d models list` or the path of an ONNX file",
        changes="never",
    )
    model_size: int = tunable(
        0,
        "Longer side at which a network without a fixed input size looks at images; 0 = as trained",
        unit="px",
        minimum=0,
        maximum=2048,
    )
    model_input: str = tunable(
        "imagenet",
        "What an ONNX file given by path expects: mean and deviation of ImageNet, 0..1 or 0..255",
        choices=("imagenet", "unit", "byte"),
    )
    model_output: str = tunable(
        "disparity",
        "What an ONNX file given by path returns: relative inverse depth, relative depth, or metres",
        choices=("disparity", "depth", "metric"),
        changes="never",
    )
    frame: str = tunable(
        "", "The frame given depth lies in where its header says a false one (the image's: it is registered to it)"
    )
    units_per_metre: float = tunable(
        0.0,
        "Units of given depth in one metre: 1000 = mm, 5000 = TUM, 256 = KITTI, 4000 = 0.25 mm, 1 = m; "
        "0 = recognise it",
        unit="1/m",
        minimum=0.0,
        maximum=1_000_000.0,
        changes="never",
    )
    minimum: float = tunable(0.05, "Nearer depth is ignored", unit="m", minimum=0.001, maximum=1000.0)
    maximum: float = tunable(100.0, "Farther depth is ignored", unit="m", minimum=0.01, maximum=100_000.0)


@dataclass
class PoseConfig:
    """Camera pose."""

    source: str = tunable(
        "visual",
        "odometry or tf: given with every frame; static: the camera never moves; visual: found from the images",
        choices=("odometry", "tf", "static", "visual"),
    )
    refine: bool = tunable(False, "odometry, tf: mend drift of the given poses by the images, and report their lag")
    known_height: float = tunable(
        0.0,
        "visual: height of the camera above the ground it sees, fixes the scale; 0 = unknown",
        unit="m",
        minimum=0.0,
        maximum=10_000.0,
        changes="never",
    )
    known_distance: float = tunable(
        0.0,
        "visual: depth of what the centre of the first frame shows, fixes the scale; 0 = unknown",
        unit="m",
        minimum=0.0,
        maximum=100_000.0,
        changes="never",
    )
    bridge: int = tunable(
        3,
        "visual: frames without a pose that are bridged by prediction before it is reported lost",
        unit="frames",
        minimum=0,
        maximum=100,
    )
    restart_after: int = tunable(
        40,
        "visual: frames without a pose, though each shows what the one before showed (a cut, somewhere else), after "
        "which a new scene begins; 0 = never, wait until something known returns",
        unit="frames",
        minimum=0,
        maximum=100_000,
    )


@dataclass
class ModelsConfig:
    """Network weights."""

    folder: str = tunable(
        "", "Where weights lie; empty = $XDG_CACHE_HOME/motion4d, usually ~/.cache/motion4d", changes="never"
    )
    provider: str = tunable(
        "auto",
        "What onnxruntime runs on; auto = cuda where run.device allows and onnxruntime has it, else cpu",
        choices=("auto", "cpu", "cuda", "tensorrt"),
    )
    half: bool = tunable(True, "Networks on a GPU run in half precision (bfloat16 where the GPU has it)")


@dataclass
class RosConfig:
    """The ROS node alone. Its parameters carry no prefix: `ros.map_frame` here is the parameter `map_frame`."""

    autostart: bool = tunable(False, "Configure and activate by itself, without a lifecycle manager")
    preset: str = tunable(
        "auto",
        "auto = a network of the cache outlines objects if this machine can run it and masks.source is propagation",
        choices=("auto", "none"),
    )
    image_transport: str = tunable("raw", "compressed: subscribe to <image>/compressed", choices=("raw", "compressed"))
    depth_transport: str = tunable(
        "raw", "compressedDepth: subscribe to <depth>/compressedDepth", choices=("raw", "compressedDepth")
    )
    map_frame: str = tunable("", "Frame of all outputs; empty = the odometry's frame, and 'map' without odometry")
    base_to_camera: str = tunable(
        "",
        "Pose of the camera's optical frame in the odometry's body frame, 'x y z qx qy qz qw' (m, unit quaternion); "
        "empty = the odometry is the camera's own, or TF knows",
        changes="never",
    )
    slop: float = tunable(
        0.01,
        "Stamps of one image's messages may differ by this much; 0 = they must be equal",
        unit="s",
        minimum=0.0,
        maximum=1.0,
    )
    sync_queue: int = tunable(30, "Messages of each input that wait for their partners", minimum=1, maximum=1000)
    pose_timeout: float = tunable(
        0.2,
        "How long a frame may wait for its transform (pose.source tf)",
        unit="s",
        minimum=0.0,
        maximum=5.0,
        changes="live",
    )
    clock_jump: float = tunable(
        0.5, "Stamps that go back further than this reset the scene", unit="s", minimum=0.05, maximum=60.0
    )
    silence: float = tunable(
        2.0, "A camera silent for longer is reported", unit="s", minimum=0.1, maximum=600.0, changes="live"
    )
    publish_tf: bool = tunable(False, "Broadcast map_frame -> object_<id> on TF", changes="live")
    trail: int = tunable(
        40, "Length of the trajectories among the markers", unit="frames", minimum=0, maximum=1000, changes="live"
    )
    status_period: float = tunable(0.5, "Time between two status messages", unit="s", minimum=0.05, maximum=60.0)
    rerun: str = tunable(
        "",
        "Stream what is found to the viewer Rerun: spawn, rerun+http://HOST:PORT/proxy, or FILE.rrd; empty = don't",
        changes="never",
    )
    save_root: str = tunable(
        "",
        "Folder below which ~/save_scene writes, in folders that the caller names; empty = the service refuses",
        changes="never",
    )
    save_room: int = tunable(
        2048,
        "What lies below save_root may take this much room in all; a scene that does not fit is not written",
        unit="MiB",
        minimum=1,
        maximum=10_000_000,
        changes="never",
    )
    watchdog: float = tunable(
        60.0,
        "A step of the worker that takes longer is ended, and a new scene begins; 0 = never",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
        changes="never",
    )


@dataclass
class GeometryConfig:
    """Depth alignment and object motion before any rendering."""

    chain_drift: float = tunable(
        0.12, "Noise that a chained track gains per frame", unit="px", minimum=0.0, maximum=10.0
    )
    chain_reach: int = tunable(
        16, "Chained tracks are trusted this far from their start", unit="frames", minimum=1, maximum=512
    )
    keyframe_spacing: int = tunable(
        6, "Distance between the points of a keyframe (half of it on objects)", unit="px", minimum=2, maximum=64
    )
    keyframe_reach: int = tunable(
        16, "Frames, each way, in which a keyframe's points are measured again", unit="frames", minimum=1, maximum=512
    )
    static_points: int = tunable(700, "Points used to align depth to the static scene", minimum=20, maximum=100_000)
    object_points: int = tunable(500, "Points used for the motion of one object", minimum=12, maximum=100_000)
    min_points: int = tunable(6, "Fewer points than this say nothing about an object's motion", minimum=4, maximum=1000)
    max_prediction: int = tunable(
        20,
        "An unseen object is carried on at constant velocity this long",
        unit="frames",
        minimum=0,
        maximum=1000,
    )
    relocalise_min_pixels: int = tunable(
        80,
        "A frame shows an object that was lost, or may have drifted, if its mask has so many pixels",
        unit="px",
        minimum=10,
        maximum=1_000_000,
    )
    max_parts: int = tunable(
        6,
        "Bodies that an object which is not rigid is divided into at most; 1 = all are rigid",
        minimum=1,
        maximum=32,
    )
    split_share: float = tunable(
        0.2,
        "Share of badly explained points from which an object is divided",
        minimum=0.0,
        maximum=1.0,
    )
    split_gain: float = tunable(
        0.7,
        "A division must bring that share down to so much of itself",
        minimum=0.0,
        maximum=1.0,
    )
    iterations: int = tunable(8, "Gauss-Newton steps per adjustment", minimum=1, maximum=100)
    sigma_scale: float = tunable(
        0.05, "Expected error of a frame's depth scale (metric depth)", minimum=0.0001, maximum=10.0
    )
    sigma_offset: float = tunable(
        0.005, "Expected offset of a frame's inverse depth, as a share of its median", minimum=0.0001, maximum=10.0
    )
    scale_conflict: float = tunable(
        0.04, "Parallax that disagrees with metric depth by a larger share is not believed", minimum=0.0, maximum=10.0
    )
    sigma_object_scale: float = tunable(
        0.01, "Expected error of the depth of one object in one frame, after alignment", minimum=0.0001, maximum=10.0
    )
    sigma_flow_field: float = tunable(
        0.07, "Error of flow that the points of an object share in a frame", unit="px", minimum=0.001, maximum=100.0
    )
    sigma_acceleration: float = tunable(
        4.0, "Acceleration expected of objects, until their own is known", unit="m/s^2", minimum=0.001, maximum=1000.0
    )
    sigma_angular_acceleration: float = tunable(
        8.0,
        "Angular acceleration expected of objects, until their own is known",
        unit="rad/s^2",
        minimum=0.001,
        maximum=10_000.0,
    )


@dataclass
class FitConfig:
    """Stages of the fit and how long they run."""

    sequential: bool = tunable(True, "Motion first, then semantics (off: both at once in every window)")
    global_stage: bool = tunable(True, "Refine everything together over the horizon (stage 3)")
    confidence: bool = tunable(True, "Weight tracks and depth by the learnt 3D confidence")
    resampling: bool = tunable(True, "Insert Gaussians where colour or labels are fitted badly")
    semantic_refinement: bool = tunable(True, "Alternate semantic fitting with refreshed masks")
    motion_iterations: int = tunable(60, "Steps of stage 1 per window", minimum=0, maximum=100_000, changes="live")
    semantic_iterations: int = tunable(24, "Steps of stage 2 per window", minimum=0, maximum=100_000, changes="live")
    global_iterations: int = tunable(48, "Steps of stage 3 per refinement", minimum=0, maximum=100_000, changes="live")
    final_remeasure: bool = tunable(
        True, "When the input ends, objects are measured again in frames where wrong masks had hidden them"
    )
    final_iterations: int = tunable(120, "Steps of stage 3 when the input ends", minimum=0, maximum=1_000_000)
    replay: float = tunable(0.3, "Share of steps that revisit older frames", minimum=0.0, maximum=0.95)
    track_reach: int = tunable(8, "Rendered tracks are compared this far", unit="frames", minimum=1, maximum=512)
    confidence_color: float = tunable(
        0.12, "Largest change of colour of a consistent pixel (delta)", unit="of 1", minimum=0.001, maximum=1.0
    )
    label_vote_views: int = tunable(
        24,
        "Frames of the horizon that vote on every Gaussian's label and existence",
        unit="frames",
        minimum=2,
        maximum=1024,
    )
    prune_min_views: int = tunable(
        4, "Frames that must have seen a Gaussian to remove it", unit="frames", minimum=1, maximum=1024
    )
    label_prior_weight: float = tunable(
        1.0, "Weight of a Gaussian's former label against the frames' votes", unit="frames", minimum=0.0, maximum=1000.0
    )
    stride: int = tunable(3, "One new static Gaussian per so many pixels squared", unit="px", minimum=1, maximum=32)
    object_stride: int = tunable(2, "The same on objects", unit="px", minimum=1, maximum=32)
    error_rgb: float = tunable(0.1, "Resample where the colour is off by more (theta_rgb)", minimum=0.0, maximum=1.0)
    error_semantic: float = tunable(
        0.5, "Resample where a label's probability is off by more (theta_sem)", minimum=0.0, maximum=1.0
    )
    resample_budget: int = tunable(400, "Gaussians inserted per resampling at most", minimum=0, maximum=100_000)


@dataclass
class LossConfig:
    """Weights of the losses."""

    rgb: float = tunable(1.0, "Weight of the colour loss", minimum=0.0, maximum=1000.0)
    ssim: float = tunable(0.2, "Share of structural dissimilarity in the colour loss", minimum=0.0, maximum=1.0)
    semantic: float = tunable(1.0, "Weight of the labels in stages 2 and 3", minimum=0.0, maximum=1000.0)
    mask: float = tunable(0.3, "Labels, as they act on geometry in stages 1 and 3", minimum=0.0, maximum=1000.0)
    depth: float = tunable(0.5, "Relative inverse depth", minimum=0.0, maximum=1000.0)
    track: float = tunable(2.0, "Rendered tracks against the prior's", minimum=0.0, maximum=1000.0)
    confidence: float = tunable(0.1, "Learning of the 3D confidence (L_w)", minimum=0.0, maximum=1000.0)
    scale_spread: float = tunable(0.01, "Variance of the log-scales", minimum=0.0, maximum=1000.0)


@dataclass
class LearningRatesConfig:
    """Learning rates (Adam)."""

    means: float = tunable(4e-4, "Canonical positions", unit="m", minimum=0.0, maximum=1.0)
    quats: float = tunable(1e-3, "Rotations of the Gaussians", minimum=0.0, maximum=1.0)
    scales: float = tunable(8e-3, "Log-scales of the Gaussians", minimum=0.0, maximum=1.0)
    opacity: float = tunable(3e-2, "Opacity logits", minimum=0.0, maximum=1.0)
    colors: float = tunable(1e-2, "Colours of the Gaussians", minimum=0.0, maximum=1.0)
    semantics: float = tunable(1e-1, "Semantic logits", minimum=0.0, maximum=1.0)
    confidence_logits: float = tunable(3e-2, "Confidence logits", minimum=0.0, maximum=1.0)
    motion_weights: float = tunable(1e-2, "Logits of the motion weights", minimum=0.0, maximum=1.0)
    geometry_multiplier: float = tunable(
        2.0,
        "Stage 1 multiplies the rates of position, rotation, scale and opacity by this where lengths are metric",
        minimum=0.1,
        maximum=100.0,
    )
    global_start: float = tunable(
        2.0, "Stage 3 multiplies all rates by this in its first step", minimum=0.01, maximum=100.0
    )
    global_end: float = tunable(
        0.5,
        "The same in its last step; between them it falls by the same share from step to step",
        minimum=0.01,
        maximum=100.0,
    )
    bases: float = tunable(
        0.0,
        "Poses of the motion bases: they are adjusted in closed form, and Adam undoes that",
        minimum=0.0,
        maximum=1.0,
    )


@dataclass
class ObjectsConfig:
    """Tracked objects: boxes, velocities, life cycle."""

    confirm_frames: int = tunable(
        3, "Frames an object must be seen in before it counts as tracked", minimum=1, maximum=100
    )
    min_pixels: int = tunable(
        20, "Fewer measured pixels than this are no sighting", unit="px", minimum=1, maximum=100_000
    )
    min_share: float = tunable(
        0.1, "A sighting measures at least this share of the pixels expected to be visible", minimum=0.0, maximum=1.0
    )
    detection: float = tunable(
        0.9, "Probability that an object in full view is measured in a frame", minimum=0.01, maximum=0.999
    )
    false_alarm: float = tunable(
        0.1, "Probability that something is measured where no object is", minimum=0.001, maximum=0.99
    )
    most: int = tunable(
        256,
        "Objects in the horizon at most; a frame or a prompt that would bring more is refused",
        minimum=1,
        maximum=4096,
    )
    hidden_half_life: float = tunable(
        20.0, "The existence of an object that can't be seen halves in this time", unit="s", minimum=0.1, maximum=1e5
    )
    lost_after: float = tunable(5.0, "Unseen for longer, an object is lost", unit="s", minimum=0.05, maximum=1e5)
    lost_existence: float = tunable(0.2, "Below this existence probability an object is lost", minimum=0.0, maximum=1.0)
    forget_after: float = tunable(
        60.0,
        "Lost objects are reported, and recognised when they return, for this long",
        unit="s",
        minimum=0.0,
        maximum=1e6,
    )
    velocity_process_noise: float = tunable(
        1.5,
        "How much an object's velocity changes within one second (bounces are recognised apart from this)",
        unit="m/s",
        minimum=0.001,
        maximum=1000.0,
    )
    rotation_process_noise: float = tunable(
        2.0,
        "How much an object's rate of rotation changes within one second",
        unit="rad/s",
        minimum=0.001,
        maximum=1000.0,
    )
    position_noise: float = tunable(
        0.015,
        "One standard deviation of the fitted position of an object in full view",
        unit="m",
        minimum=1e-5,
        maximum=10.0,
    )
    recognise: float = tunable(
        0.45, "Colours of a returning object may differ this much (Hellinger distance)", minimum=0.0, maximum=1.0
    )


@dataclass
class Config:
    """The whole configuration: one attribute for each section, `config.window.length` or `config.get("window.length")`.

    Names, units and ranges are those of the node's parameters. Set values with `set`, which checks them.
    """

    run: RunConfig = section(RunConfig)
    budget: BudgetConfig = section(BudgetConfig)
    window: WindowConfig = section(WindowConfig)
    tracks: TracksConfig = section(TracksConfig)
    masks: MasksConfig = section(MasksConfig)
    detections: DetectionsConfig = section(DetectionsConfig)
    depth: DepthConfig = section(DepthConfig)
    pose: PoseConfig = section(PoseConfig)
    geometry: GeometryConfig = section(GeometryConfig)
    fit: FitConfig = section(FitConfig)
    loss: LossConfig = section(LossConfig)
    lr: LearningRatesConfig = section(LearningRatesConfig)
    objects: ObjectsConfig = section(ObjectsConfig)
    models: ModelsConfig = section(ModelsConfig)
    ros: RosConfig = section(RosConfig)

    def tunables(self) -> list[Tunable]:
        """Every tunable with its declaration, in order."""
        return list(walk(self))

    def get(self, path: str) -> Any:
        """The value of the tunable at the dotted `path`; raises `Motion4DError` for a name that does not exist."""
        return get(self, self._find(path).path)

    def set(self, path: str, value: Any) -> None:
        """Parses, checks and sets one tunable: `config.set("window.length", 12)`, or the same as text.

        Raises `Motion4DError` for an unknown name, a wrong type, and a value out of range.
        """
        found = self._find(path)
        put(self, found.path, found.parse(value))

    def update(self, values: Mapping[str, Any], prefix: str = "") -> None:
        """Sets many tunables from a nested or dotted mapping, such as a YAML file holds; raises as `set` does."""
        for key, value in values.items():
            path = f"{prefix}{key}"
            if isinstance(value, Mapping):
                self.update(value, f"{path}.")
            else:
                self.set(path, value)

    def update_from_yaml(self, path: Path) -> None:
        """Reads a YAML file: either plain nested keys or a ROS parameter file (``node: ros__parameters: …``).

        Raises `Motion4DError` for a file that cannot be read or is no YAML, and as `set` does.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise Motion4DError(f"{path}: cannot be read ({error.strerror})") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Motion4DError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
        if content is None:
            return
        if not isinstance(content, Mapping):
            raise Motion4DError(f"{path}: expected keys and values at the top level")
        for value in content.values():
            if isinstance(value, Mapping) and "ros__parameters" in value:
                content = value["ros__parameters"]
                break
        self.update({key: value for key, value in content.items() if key not in ROS_ONLY_KEYS})

    @property
    def finder(self) -> str:
        """What finds objects: `masks.discovery`, or none where masks are given, or nobody wants any."""
        return "none" if self.masks.source in ("topic", "none") else self.masks.discovery

    def copy(self) -> Config:
        """An independent copy."""
        return copy.deepcopy(self)

    def as_dict(self) -> dict[str, Any]:
        """Dotted path -> value."""
        return {item.path: get(self, item.path) for item in self.tunables()}

    def _find(self, path: str) -> Tunable:
        refuse_renamed(path)
        by_path = {item.path: item for item in self.tunables()}
        if f"ros.{path}" in by_path:  # as the node's parameters are called
            path = f"ros.{path}"
        if path not in by_path:
            near = difflib.get_close_matches(path, by_path, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; docs/reference/interface.md lists them all"
            raise Motion4DError(f"unknown setting {path!r}{hint}")
        return by_path[path]


RENAMED: Mapping[str, str] = {
    "masks.bodies": "masks.rigid_segmentation",
    "geometry.vote_reach": "masks.fusion_reach",
    "geometry.coast": "geometry.max_prediction",
    "geometry.reunion_pixels": "geometry.relocalise_min_pixels",
    "fit.hindsight": "fit.final_remeasure",
    "fit.witnesses": "fit.label_vote_views",
    "fit.min_witnesses": "fit.prune_min_views",
    "fit.vote_doubt": "fit.label_prior_weight",
    "rates.uncertainty": "lr.confidence_logits",
    "rates.haste": "lr.geometry_multiplier",
    **{
        f"rates.{name}": f"lr.{name}"
        for name in ("means", "quats", "scales", "opacity", "colors", "semantics", "motion_weights", "bases")
    },
    "objects.agility": "objects.velocity_process_noise",
    "objects.turn_agility": "objects.rotation_process_noise",
}
"""Former names of tunables. They are refused, with the name of today."""


def refuse_renamed(path: str) -> None:
    """Raises `Motion4DError` with the name of today when the dotted `path` is a former one."""
    if path in RENAMED:
        raise Motion4DError(f"setting {path!r} is called {RENAMED[path]!r} now: use that name")


ROS_ONLY_KEYS = frozenset({"use_sim_time", "qos_overrides", "start_type_description_service"})
"""Keys of a ROS parameter file that belong to `rclpy`, not to us."""
