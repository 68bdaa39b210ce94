"""What flows through the system: frames in, priors and windows inside, estimates out.

Conventions, used everywhere without repeating them:

* Frames of reference stand in names. ``T_map_cam`` maps camera points to the map: ``xyz_map = R @ xyz_cam + t``.
  The camera frame is the optical one (REP-103: x right, y down, z forward).
* Units stand in names: ``depth_m``, ``stamp_ns``, ``uv_px``. Pixel (0, 0) is the *centre* of the top-left pixel.
* Label images hold object ids: 0 is background, -1 means "nobody knows".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.errors import Motion4DError as Motion4DError

FloatArray: TypeAlias = NDArray[np.floating]
IntArray: TypeAlias = NDArray[np.integer]
BoolArray: TypeAlias = NDArray[np.bool_]

BACKGROUND = 0
UNSCALED_DISTANCE = 2.0  # map units at which things are put where nothing says how far they are
SAME_CAMERA = 0.003  # of the longer side: intrinsics that differ by less are those of one camera
CAMERA_CHANGED = "the camera changed (size or intrinsics)"  # reasons for which a new scene begins
CAMERA_LOST = "camera lost"
CLOCK_JUMPED = "the clock jumped back"
NO_GROUND = "too little of the picture agrees on what stands still"  # a warning begins so
UNKNOWN_LABEL = -1


class Stage(enum.Enum):
    """How far an estimate has been computed. A later stage of the same stamp replaces an earlier one."""

    LIVE = "live"  # predicted from the scene the moment the frame arrived
    WINDOW = "window"  # fitted with its window (stages 1 and 2)
    GLOBAL = "global"  # refined jointly over the horizon (stage 3)


class Scale(enum.Enum):
    """What a length of 1.0 in the map means."""

    METRIC = "metric"  # metres
    RELATIVE = "relative"  # consistent over the run, but of unknown length
    UNKNOWN = "unknown"  # not even consistent (no parallax, no depth)

    @property
    def unit(self) -> str:
        """What to write behind a length."""
        return "m" if self is Scale.METRIC else "units"


class ObjectPhase(enum.Enum):
    """Life cycle of a tracked object."""

    NEW = "new"  # seen too briefly to be sure of
    TRACKED = "tracked"  # explained by current images
    OCCLUDED = "occluded"  # believed to be there, but hidden: its pose is predicted
    LOST = "lost"  # hidden or out of view for so long that its pose says little


class PoseStatus(enum.Enum):
    """Whether the camera pose of a frame can be relied upon."""

    OK = "ok"
    PREDICTED = "predicted"  # bridged over a short gap
    LOST = "lost"


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion (images are rectified before they get here).

    Raises `Motion4DError` for a size below 1 px, and for a focal length that is not positive or an entry that is not
    finite.
    """

    fx: float  # focal lengths, px
    fy: float
    cx: float  # principal point, px; (0, 0) is the centre of the top-left pixel
    cy: float
    width: int  # of its images, px
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise Motion4DError(f"camera of {self.width}x{self.height} px: check width and height in camera_info")
        finite = all(np.isfinite(v) for v in (self.fx, self.fy, self.cx, self.cy))
        if not finite or self.fx <= 0 or self.fy <= 0:
            raise Motion4DError(f"camera with fx={self.fx} fy={self.fy}: is the camera calibrated?")

    @property
    def K(self) -> FloatArray:
        """(3, 3) intrinsic matrix, px."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), px: the shape of its images."""
        return self.height, self.width

    def is_like(self, other: Camera) -> bool:
        """Whether it is the same camera: of the same size, and no intrinsic differs by more than lenses that keep
        adjusting themselves (focus, stabilisation) make it.
        """
        slack = SAME_CAMERA * max(self.size)
        apart = np.subtract((self.fx, self.fy, self.cx, self.cy), (other.fx, other.fy, other.cx, other.cy))
        return self.size == other.size and bool((np.abs(apart) <= slack).all())

    def scaled(self, factor: float) -> Camera:
        """The same camera with images resized by `factor` (pixel-centre convention)."""
        width, height = max(1, round(self.width * factor)), max(1, round(self.height * factor))
        sx, sy = width / self.width, height / self.height
        return Camera(self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5, width, height)

    def project(self, xyz_cam: FloatArray) -> FloatArray:
        """(..., 3) camera points, m -> (..., 2) pixels; points at or behind the camera give NaN."""
        z = xyz_cam[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(z > 1e-9, 1.0 / z, np.nan)
        return np.stack(
            [self.fx * xyz_cam[..., 0] * inverse + self.cx, self.fy * xyz_cam[..., 1] * inverse + self.cy], -1
        )

    def unproject(self, uv_px: FloatArray, depth_m: FloatArray) -> FloatArray:
        """(..., 2) pixels and (...) depths along z, m -> (..., 3) camera points, m."""
        x = (uv_px[..., 0] - self.cx) / self.fx
        y = (uv_px[..., 1] - self.cy) / self.fy
        return np.stack([x * depth_m, y * depth_m, depth_m], -1)

    def pixel_grid(self) -> FloatArray:
        """(H, W, 2) pixel coordinates (x, y) of every pixel centre."""
        x, y = np.meshgrid(np.arange(self.width, dtype=float), np.arange(self.height, dtype=float))
        return np.stack([x, y], -1)


@dataclass(frozen=True)
class Detection:
    """What a detector says of one thing in one image."""

    box_px: tuple[float, float, float, float]  # x0, y0, x1, y1 of the frame's image, inclusive
    label: str  # name of the class
    score: float  # the detector's own probability of that, in [0, 1]
    object_id: str = ""  # the detector's own name for this very thing, where it follows things

    def scaled(self, x: float, y: float) -> Detection:
        """The same in the pixels of an image `x` times as wide and `y` times as high (pixel-centre convention)."""
        x0, y0, x1, y1 = self.box_px
        box = ((x0 + 0.5) * x - 0.5, (y0 + 0.5) * y - 0.5, (x1 + 0.5) * x - 0.5, (y1 + 0.5) * y - 0.5)
        return replace(self, box_px=box)


@dataclass
class Frame:
    """One image and whatever was measured with it. `None` means "not given".

    Raises `Motion4DError` when the image is no (H, W, 3) uint8, when shapes disagree, and for a pose that is not
    finite.
    """

    stamp_ns: int  # time of the image, ns; must grow from frame to frame
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    camera: Camera
    T_map_cam: FloatArray | None = None  # (4, 4) camera points to map points, m
    depth_m: NDArray[np.float32] | None = None  # (H, W); 0, NaN or inf = unknown
    masks: IntArray | None = None  # (H, W) object ids as a 2D network sees them: may flicker, leak and swap
    frame_id: str = "camera"  # name of the optical frame, repeated on outputs
    index: int = -1  # running number, given by the pipeline
    detections: tuple[Detection, ...] | None = None  # None: no detector has looked at it, or it hasn't said yet

    def __post_init__(self) -> None:
        expected = (*self.camera.size, 3)
        if self.image.shape != expected or self.image.dtype != np.uint8:
            raise Motion4DError(
                f"image is {self.image.dtype}{self.image.shape}, its camera expects uint8{expected}: "
                "do camera_info and image belong together?"
            )
        for name in ("depth_m", "masks"):
            value = getattr(self, name)
            if value is not None and value.shape != self.camera.size:
                raise Motion4DError(
                    f"{name} has shape {value.shape}, its image {self.camera.size}: "
                    "register or resize it to the colour image"
                )
        pose = self.T_map_cam
        if pose is not None and (pose.shape != (4, 4) or not np.isfinite(pose).all()):
            raise Motion4DError("T_map_cam must be a finite 4x4 matrix: check the pose source")

    def with_index(self, index: int) -> Frame:
        """A shallow copy that carries its running number."""
        return replace(self, index=index)


@dataclass
class PointTracks:
    """2D tracks of N points over T consecutive frames.

    `first_index` is the frame index of column 0. Where `visible` is False, `uv_px` is a guess or NaN.
    """

    ids: NDArray[np.int64]  # (N,) unique, never reused
    uv_px: NDArray[np.float32]  # (N, T, 2) x, y
    visible: BoolArray  # (N, T)
    sigma_px: NDArray[np.float32]  # (N, T) one standard deviation; grows with the length of the chain
    query_index: NDArray[np.int64]  # (N,) frame index where the track was started
    first_index: int

    @property
    def count(self) -> int:
        """Number of tracks N."""
        return len(self.ids)

    @property
    def length(self) -> int:
        """Number of frames T."""
        return self.uv_px.shape[1]


@dataclass
class Priors:
    """What the 2D sources say about one frame, in the units of the map."""

    depth_m: NDArray[np.float32] | None  # (H, W); NaN = unknown
    depth_sigma: NDArray[np.float32] | None  # (H, W) one relative standard deviation (0.03 = 3 %)
    masks: IntArray | None  # (H, W) object ids, UNKNOWN_LABEL where nobody knows
    T_map_cam: FloatArray  # (4, 4)
    pose_status: PoseStatus = PoseStatus.OK
    scale: Scale = Scale.METRIC


@dataclass
class Prompt:
    """A person's or a network's word on one object in one frame.

    Give any of points, box, mask and a point in 3D. Pixels are those of the frame's image.
    """

    stamp_ns: int  # of the frame that is meant; 0: the newest one
    object_id: int = 0  # 0 starts a new object
    points_px: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))  # (P, 2) x, y
    positive: BoolArray = field(default_factory=lambda: np.zeros(0, bool))  # (P,) True: on the object
    box_px: FloatArray | None = None  # (4,) x0, y0, x1, y1, inclusive
    mask: BoolArray | None = None  # (H, W)
    xyz_map: FloatArray | None = None  # (3,) m, a click in 3D
    name: str = ""  # new label of the object; "": as it is
    delete: bool = False  # True: forget this object, everything else is ignored

    def __post_init__(self) -> None:
        """Plain lists will do, too. Raises `Motion4DError` for other shapes."""
        for name, shape in (("points_px", (-1, 2)), ("box_px", (4,)), ("xyz_map", (3,))):
            value = getattr(self, name)
            try:
                setattr(self, name, None if value is None else np.asarray(value, float).reshape(shape))
            except (TypeError, ValueError):
                raise Motion4DError(f"prompt: {name}={value!r}: expected numbers of shape {shape}") from None
        self.positive = np.asarray(self.positive, bool)

    @property
    def marks(self) -> bool:
        """Whether it says where something is, not only what it is called."""
        drawn = len(self.points_px) > 0 or self.box_px is not None or self.mask is not None
        return drawn or self.xyz_map is not None


@dataclass
class TrackedPoints:
    """Points on moving things at one time, map frame."""

    point_id: NDArray[np.uint32]  # (P,) never reused
    object_id: NDArray[np.uint32]  # (P,)
    xyz_map: NDArray[np.float32]  # (P, 3) m
    velocity: NDArray[np.float32]  # (P, 3) m/s
    rgb: NDArray[np.uint8]  # (P, 3) red, green, blue
    confidence: NDArray[np.float32]  # (P,) probability to be within 5 px, and 5 cm where lengths are metres

    @staticmethod
    def empty() -> TrackedPoints:
        """No points at all."""
        return TrackedPoints(
            np.zeros(0, np.uint32),
            np.zeros(0, np.uint32),
            np.zeros((0, 3), np.float32),
            np.zeros((0, 3), np.float32),
            np.zeros((0, 3), np.uint8),
            np.zeros(0, np.float32),
        )


@dataclass
class StaticPoints:
    """The static map: centres of its Gaussians, map frame."""

    xyz_map: NDArray[np.float32]  # (P, 3) m
    rgb: NDArray[np.uint8]  # (P, 3)
    confidence: NDArray[np.float32]  # (P,) learnt, in [0, 1]


@dataclass
class ObjectState:
    """One object at one time, map frame. Read "m" as "units" where the estimate's scale is not METRIC."""

    object_id: int  # from 1; never given to another object
    label: str  # name given by a prompt, else the class that detectors see in it; "": none
    phase: ObjectPhase
    existence: float  # probability in [0, 1]
    T_map_object: FloatArray  # (4, 4) pose of the oriented box: its centre (m) and axes
    pose_covariance: FloatArray  # (6, 6) x, y, z (m), rotation about map x, y, z (rad)
    twist: FloatArray  # (6,) vx, vy, vz of the centre (m/s), wx, wy, wz (rad/s), along the map's axes
    twist_covariance: FloatArray  # (6, 6) of the same, (m/s)^2 and (rad/s)^2
    size_m: FloatArray  # (3,) full extent along the box axes, m
    point_count: int  # moving points that belong to it at this time
    first_seen_ns: int  # stamp of the first image that shows it
    last_seen_ns: int  # stamp of the newest one
    label_score: float = 0.0  # probability that `label` is right, in [0, 1]; 1 where a person gave it
    T_body_object: FloatArray = field(default_factory=lambda: np.eye(4))
    """(4, 4) the box in a frame that is fixed on the body: `T_map_object` by its inverse is the body's motion, however
    the box grows.
    """

    @property
    def named(self) -> str:
        """The label for people, with its probability unless a person gave it; empty without one."""
        return f"{self.label} {self.label_score:.0%}" if self.label and self.label_score < 1.0 else self.label


@dataclass
class Estimate:
    """What the system believes about one input frame. Everything in space is in the map's frame."""

    index: int  # running number; -1: there was no time to fit this frame, only its live estimate will ever be said
    stamp_ns: int  # of the input frame
    frame_id: str  # name of the camera's optical frame
    stage: Stage
    camera: Camera  # of the input image
    T_map_cam: FloatArray  # (4, 4) camera pose as used or found
    pose_status: PoseStatus  # whether that pose can be relied upon
    scale: Scale  # what a length of 1 means
    masks: NDArray[np.uint16]  # (H, W) object ids, 0 background; (0, 0) where nobody asked for them
    points: TrackedPoints  # moving points
    objects: list[ObjectState]  # ascending ids
    warnings: tuple[str, ...] = ()  # what was odd about this frame, for people
    mask_confidence: NDArray[np.uint8] | None = None  # (H, W) probability of the label in `masks`, in 255ths


@dataclass
class QueryTracks:
    """Trajectories of query points over the frames `stamps_ns` (TAP-Vid conventions)."""

    query_points: FloatArray  # (Q, 3) t, y, x (frame number, px, px)
    tracks: NDArray[np.float32]  # (Q, T, 2) x, y px of the input image
    occluded: BoolArray  # (Q, T) True: hidden
    tracks_xyz: NDArray[np.float32]  # (Q, T, 3) m, map frame
    confidence: NDArray[np.float32]  # (Q, T) probability to be within 5 px, and 5 cm where lengths are metres
    stamps_ns: NDArray[np.int64]  # (T,)
    first_index: int = 0  # frame number of the first column


@dataclass
class Rendered:
    """Images of the scene as seen by one camera at one time."""

    rgb: NDArray[np.uint8]  # (H, W, 3) red, green, blue; black where nothing is
    depth_m: NDArray[np.float32]  # (H, W) along the optical axis, m; NaN where nothing is
    depth_sigma_m: NDArray[np.float32]  # (H, W) one standard deviation of the depth; NaN where nothing is
    alpha: NDArray[np.float32]  # (H, W) opacity in [0, 1]
    confidence: NDArray[np.float32]  # (H, W) learnt 3D confidence in [0, 1]
    masks: NDArray[np.uint16]  # (H, W) object ids, 0 background


@dataclass
class Health:
    """Counters of the engine since its start; the node adds those of its queue."""

    frames: int = 0  # frames accepted
    live_only: int = 0  # of those, frames that got a live estimate only: there was no time to fit them
    stride: int = 1  # every n-th frame is fitted now
    windows: int = 0  # windows fitted
    refinements: int = 0  # global rounds finished
    gaussians_static: int = 0  # Gaussians of the background
    gaussians_dynamic: int = 0  # Gaussians on moving objects
    bases: int = 0  # motion bases
    objects: int = 0  # objects in the scene
    horizon: int = 0  # frames in the active horizon
    scale: Scale = Scale.UNKNOWN
    pose_status: PoseStatus = PoseStatus.OK
    device: str = "cpu"  # where the scene is fitted: cpu or cuda
    trouble: str = ""  # what went wrong in a source of masks or depth with the newest frame, in words
    resumed: str = ""  # what became of a scene that was saved before a crash, in words
    doubt: str = ""  # why what is taken for still may itself move now, in words
    live_consistency: float = 1.0  # squared error of live predictions by stated variance, running mean; 1 is honest
    live_inconsistent: bool = False  # whether that is outside its band
    stage_seconds: dict[str, float] = field(default_factory=dict)  # total time by stage, s
    raster_seconds: float = 0.0  # of which inside the raster kernels, s
    warnings: dict[str, int] = field(default_factory=dict)  # text -> how often
