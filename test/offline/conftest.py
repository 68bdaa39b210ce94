"""What the tests of the offline half share: small bags written on the spot, and an engine that fits nothing."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation

from motion4d_ros.cli import main
from motion4d_ros.config import Config
from motion4d_ros.offline.sources import open_source
from motion4d_ros.offline.sources.bags.bag_reader import VISION_MESSAGES
from motion4d_ros.types import (
    Estimate,
    Frame,
    Health,
    ObjectPhase,
    ObjectState,
    PoseStatus,
    QueryTracks,
    Rendered,
    Scale,
    Stage,
    StaticPoints,
    TrackedPoints,
)


@pytest.fixture(autouse=True)
def _signals_as_a_terminal_leaves_them():
    """Whoever started the tests may ignore some (nohup does), and the processes they start would inherit that."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class EngineDouble:
    """A deterministic stand-in for `Motion4D`, for tests of readers and writers only: it fits nothing.

    It believes every mask it is given (none: one square that moves to the right), places objects by the median depth of
    the image, and lets query points follow the centre of their object. Windows are `config.window.length` frames long.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.frames: list[Frame] = []
        self.prompts = []
        self.closed = 0
        self.flushed = False
        self.on_accept = None  # a test's hook, called with the running number

    def reason_to_restart(self, frame):
        return ""

    def add_frame(self, frame):
        index = len(self.frames)
        if self.on_accept is not None:
            self.on_accept(index)
        self.frames.append(frame.with_index(index))
        return self._estimate(index, Stage.LIVE)

    def process_window(self, should_yield=None):
        length = self.config.window.length
        if len(self.frames) - self.closed < length:
            return []
        begin, self.closed = self.closed, self.closed + length
        return [self._estimate(i, Stage.WINDOW) for i in range(begin, self.closed)]

    def push(self, frame):
        return [self.add_frame(frame), *self.process_window()]

    def refine(self, should_yield=None):
        return []

    def flush(self, should_yield=None):
        self.closed, self.flushed = len(self.frames), True
        return [self._estimate(i, Stage.GLOBAL) for i in range(len(self.frames))]

    def status(self):
        return Health(
            frames=len(self.frames), windows=self.closed // self.config.window.length, gaussians_static=500,
            gaussians_dynamic=60, bases=2, objects=2, horizon=len(self.frames), scale=Scale.METRIC,
            stage_seconds={"stage 1 motion": 1.5, "stage 2 semantics": 0.5, "stage 3 global": 0.8}, raster_seconds=1.7,
            warnings={"a warning of the engine": 2},
        )  # fmt: skip

    def prompt(self, prompt):
        assert self.frames[-1].stamp_ns == prompt.stamp_ns
        self.prompts.append(prompt)
        return prompt.object_id

    def query(self, points_tyx):
        count = len(self.frames)
        assert (points_tyx[:, 0] < count).all(), "asked for a frame that has not been seen"
        shape = (len(points_tyx), count)
        tracks, xyz = np.zeros((*shape, 2), np.float32), np.zeros((*shape, 3), np.float32)
        shift = 0.0 if self.flushed else 0.25  # online and final answers differ
        for row, (t, y, x) in enumerate(points_tyx):
            own = self._masks(int(t))
            object_id = int(own[int(y), int(x)])
            start = self._centre(int(t), object_id)
            for k in range(count):
                delta = self._centre(k, object_id) - start
                tracks[row, k] = np.array([x, y]) + delta + shift
                xyz[row, k] = self._lift(k, tracks[row, k])
        return QueryTracks(
            points_tyx, tracks, np.zeros(shape, bool), xyz, np.full(shape, 0.8, np.float32),
            np.array([f.stamp_ns for f in self.frames], np.int64),
        )  # fmt: skip

    def render(self, index):
        frame = self.frames[index]
        height, width = frame.camera.size
        ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
        solid = np.ones((height, width), np.float32)
        return Rendered(frame.image, 1 + ramp, 0.1 * ramp, solid, ramp, self._masks(index))

    def static_points(self):
        generator = np.random.default_rng(0)
        xyz = generator.uniform([-1.5, -1, 1.5], [1.5, 1, 3.0], (2000, 3)).astype(np.float32)
        return StaticPoints(xyz, generator.integers(60, 220, (2000, 3)).astype(np.uint8), np.ones(2000, np.float32))

    def save_scene(self, folder):
        paths = [Path(folder) / "scene.json", Path(folder) / "scene.ply"]
        for path in paths:
            path.write_text("scene")
        return [str(path) for path in paths]

    @property
    def T_map_cams(self):
        return {i: self._pose(i) for i in range(len(self.frames))}

    def _pose(self, index):
        T = self.frames[index].T_map_cam
        return np.eye(4) if T is None else T

    def _masks(self, index):
        frame = self.frames[index]
        if frame.masks is not None:
            return frame.masks.astype(np.uint16)
        masks = np.zeros(frame.camera.size, np.uint16)
        masks[8:20, 4 + index : 16 + index] = 1
        return masks

    def _centre(self, index, object_id):
        rows, columns = np.nonzero(self._masks(index) == object_id)
        if object_id == 0 or not len(rows):
            return np.zeros(2)
        return np.array([columns.mean(), rows.mean()])

    def _lift(self, index, uv):
        frame = self.frames[index]
        T = self._pose(index)
        depth = 2.0
        if frame.depth_m is not None and (frame.depth_m > 0).any():
            depth = float(np.median(frame.depth_m[frame.depth_m > 0]))
        return T[:3, :3] @ frame.camera.unproject(np.asarray(uv, float), np.array(depth)) + T[:3, 3]

    def _estimate(self, index, stage):
        frame = self.frames[index]
        masks = self._masks(index)
        objects = []
        points = [np.zeros((0, 3))]
        ids = []
        for object_id in np.unique(masks[masks > 0]).tolist():
            T = np.eye(4)
            T[:3, 3] = self._lift(index, self._centre(index, object_id))
            previous = T[:3, 3] if index == 0 else self._lift(index - 1, self._centre(index - 1, object_id))
            velocity = (T[:3, 3] - previous) * 10.0
            objects.append(
                ObjectState(
                    object_id, "", ObjectPhase.TRACKED if index else ObjectPhase.NEW, 0.9, T, 1e-4 * np.eye(6),
                    np.concatenate([velocity, np.zeros(3)]), 1e-3 * np.eye(6), np.array([0.3, 0.2, 0.25]), 20,
                    self.frames[0].stamp_ns, frame.stamp_ns,
                )
            )  # fmt: skip
            cloud = np.random.default_rng(object_id).normal(0, 0.08, (20, 3))
            points.append(cloud + T[:3, 3])
            ids += [object_id] * 20
        xyz = np.concatenate(points).astype(np.float32)
        count = len(xyz)
        tracked = TrackedPoints(
            np.arange(count, dtype=np.uint32), np.array(ids, np.uint32), xyz, np.zeros((count, 3), np.float32),
            np.full((count, 3), 180, np.uint8), np.full(count, 0.7, np.float32),
        )  # fmt: skip
        return Estimate(
            index, frame.stamp_ns, frame.frame_id, stage, frame.camera, self._pose(index), PoseStatus.OK, Scale.METRIC,
            masks, tracked, objects,
        )  # fmt: skip


@pytest.fixture
def engine_double():
    """The class: an engine factory for `analyze`."""
    return EngineDouble


WIDTH, HEIGHT = 48, 32
START_NS = 1_700_000_000_000_000_000
STEP_NS = 100_000_000


def scene(index, width=WIDTH, height=HEIGHT):
    """(H, W, 3) RGB and (H, W) labels of frame `index`: a red square moves right over a pattern."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([(columns * 5) % 200, (rows * 7) % 200, (columns + rows) * 2], -1).astype(np.uint8)
    labels = np.zeros((height, width), np.uint16)
    labels[8:20, 4 + index : 16 + index] = 3
    image[labels == 3] = (220, 40, 30)
    return image, labels


class BagMaker:
    """Writes bags with the usual topics; every odd thing is an argument.

    `storage`: mcap, sqlite3 or ros1. `topics`: subset of image, info, depth, masks, odom, tf.
    """

    def __init__(self, folder):
        self.folder = folder
        self.poses = {}

    def __call__(
        self, name="bag", *, frames=10, storage="mcap", topics=("image", "info", "depth", "masks", "odom"),
        image_encoding="rgb8", compressed=False, depth_encoding="32FC1", depth_value=2.0, depth_size=None,
        masks_size=None, image_sizes=None, distortion=(), model="plumb_bob", body="camera_optical", pose_gap=(),
        pose_offset_ns=0, stamps=None, image_topic="/camera/image_raw", extra=(), odometry_type="nav_msgs/msg/Odometry",
        ros1_compression=None, focals=None, detections=None, detections_offset_ns=0,
    ):  # fmt: skip
        ros1 = storage == "ros1"
        store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_JAZZY)
        if detections is not None:
            store.register(get_types_from_msg(VISION_MESSAGES, "vision_msgs/msg/Detection2DArray"))
        path = self.folder / (f"{name}.bag" if ros1 else name)
        plugin = StoragePlugin.SQLITE3 if storage == "sqlite3" else StoragePlugin.MCAP
        bag = Writer1(path) if ros1 else Writer(path, version=9, storage_plugin=plugin)
        if ros1_compression is not None:
            bag.set_compression(Writer1.CompressionFormat[ros1_compression])
        with bag as writer:
            self._write(writer, store, ros1, locals())
        return path

    def _write(self, writer, store, ros1, a):
        connections = {}

        def new(kind, **fields):
            if kind == "std_msgs/msg/Header" and ros1:
                fields["seq"] = 0
            return store.types[kind](**fields)

        def header(stamp_ns, frame="camera_optical"):
            time = new("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
            return new("std_msgs/msg/Header", stamp=time, frame_id=frame)

        def write(topic, message):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            data = store.serialize_ros1(message, kind) if ros1 else store.serialize_cdr(message, kind)
            writer.write(connections[topic], self.now_ns, data)

        def hypothesis(label, score):
            zero = new("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0)
            pose = new(
                "geometry_msgs/msg/Pose", position=zero,
                orientation=new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
            )  # fmt: skip
            return new(
                "vision_msgs/msg/ObjectHypothesisWithPose",
                hypothesis=new("vision_msgs/msg/ObjectHypothesis", class_id=label, score=score),
                pose=new("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
            )

        def image(array, encoding, stamp_ns):
            height, width = array.shape[:2]
            return new(
                "sensor_msgs/msg/Image", header=header(stamp_ns), height=height, width=width, encoding=encoding,
                is_bigendian=0, step=array.nbytes // height,
                data=np.ascontiguousarray(array).view(np.uint8).reshape(-1),
            )  # fmt: skip

        self.now_ns = START_NS  # of the recording, which need not be the header's
        for topic in a["extra"]:
            write(topic, image(scene(0)[0], "rgb8", START_NS))
        for index in range(a["frames"]):
            self.now_ns = START_NS + index * STEP_NS
            stamp = self.now_ns if a["stamps"] is None else a["stamps"][index]
            width, height = (WIDTH, HEIGHT) if a["image_sizes"] is None else a["image_sizes"][index]
            rgb, labels = scene(index, width, height)
            boxes = []
            if "info" in a["topics"]:
                focal = 40.0 if a["focals"] is None else a["focals"][index]
                K = np.array([focal, 0, 23.5, 0, focal, 15.5, 0, 0, 1])
                P = np.array([focal, 0, 23.5, 0, 0, focal, 15.5, 0, 0, 0, 1, 0])
                upper = str.upper if ros1 else str
                fields = {upper("d"): np.array(a["distortion"], float), upper("k"): K, upper("p"): P}
                fields[upper("r")] = np.eye(3).reshape(-1)
                roi = new(
                    "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
                )
                info = new(
                    "sensor_msgs/msg/CameraInfo", header=header(stamp), height=HEIGHT, width=WIDTH,
                    distortion_model=a["model"], binning_x=0, binning_y=0, roi=roi, **fields,
                )  # fmt: skip
                write("/camera/camera_info", info)
            if "depth" in a["topics"]:
                size = a["depth_size"] or (height, width)
                metres = np.full(size, a["depth_value"], np.float32)
                array = metres if a["depth_encoding"] == "32FC1" else np.round(metres * 1000).astype(np.uint16)
                write("/camera/depth", image(array, a["depth_encoding"], stamp))
            if "masks" in a["topics"]:
                sized = labels if a["masks_size"] is None else np.zeros(a["masks_size"], np.uint16)
                write("/camera/mask", image(sized, "16UC1", stamp))
            if "image" in a["topics"]:
                if a["compressed"]:
                    data = cv2.imencode(".png", rgb[..., ::-1])[1].reshape(-1)
                    message = new("sensor_msgs/msg/CompressedImage", header=header(stamp), format="png", data=data)
                    write(f"{a['image_topic']}/compressed", message)
                else:
                    array = {"rgb8": rgb, "bgr8": rgb[..., ::-1]}.get(a["image_encoding"], rgb[..., 0])
                    write(a["image_topic"], image(array, a["image_encoding"], stamp))
            for centre_x, centre_y, wide, high, label, score in (a["detections"] or {}).get(index, ()):
                kind = "vision_msgs/msg/{}".format
                spot = new(kind("Pose2D"), position=new(kind("Point2D"), x=centre_x, y=centre_y), theta=0.0)
                boxes.append(
                    new(
                        kind("Detection2D"), header=header(stamp), results=[hypothesis(label, score)], id="",
                        bbox=new(kind("BoundingBox2D"), center=spot, size_x=wide, size_y=high),
                    )
                )  # fmt: skip
            if index in (a["detections"] or {}):
                late = header(stamp + a["detections_offset_ns"])
                write("/detections", new("vision_msgs/msg/Detection2DArray", header=late, detections=boxes))
            if index not in a["pose_gap"]:
                self._write_pose(new, header, write, index, stamp + a["pose_offset_ns"], a)

    def _write_pose(self, new, header, write, index, stamp, a):
        position, quaternion = np.array([0.1 * index, 0.0, 0.5]), Rotation.from_euler("z", 2.0 * index, True).as_quat()
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = Rotation.from_quat(quaternion).as_matrix(), position
        self.poses[stamp] = T
        point = new("geometry_msgs/msg/Point", x=position[0], y=position[1], z=position[2])
        turn = new("geometry_msgs/msg/Quaternion", **dict(zip("xyzw", quaternion.tolist(), strict=True)))
        pose = new("geometry_msgs/msg/Pose", position=point, orientation=turn)
        zero = new("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        if "odom" in a["topics"] and a["odometry_type"].endswith("PoseStamped"):
            write("/odom", new("geometry_msgs/msg/PoseStamped", header=header(stamp, "map"), pose=pose))
        elif "odom" in a["topics"]:
            message = new(
                "nav_msgs/msg/Odometry", header=header(stamp, "map"), child_frame_id=a["body"],
                pose=new("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
                twist=new(
                    "geometry_msgs/msg/TwistWithCovariance",
                    twist=new("geometry_msgs/msg/Twist", linear=zero, angular=zero), covariance=np.zeros(36),
                ),
            )  # fmt: skip
            write("/odom", message)
        if "tf" in a["topics"]:
            links = [("/tf", "map", "base", position, turn)]
            if index == 0:  # the camera sits 0.2 m above the base, looking along its x axis
                optical = new("geometry_msgs/msg/Quaternion", x=-0.5, y=0.5, z=-0.5, w=0.5)
                links.insert(0, ("/tf_static", "base", "camera_optical", np.array([0, 0, 0.2]), optical))
            for topic, parent, child, offset, rotation in links:
                vector = new("geometry_msgs/msg/Vector3", x=float(offset[0]), y=float(offset[1]), z=float(offset[2]))
                transform = new("geometry_msgs/msg/Transform", translation=vector, rotation=rotation)
                item = new(
                    "geometry_msgs/msg/TransformStamped", header=header(stamp, parent), child_frame_id=child,
                    transform=transform,
                )  # fmt: skip
                write(topic, new("tf2_msgs/msg/TFMessage", transforms=[item]))


@pytest.fixture
def make_bag(tmp_path):
    """A `BagMaker` in the test's folder."""
    return BagMaker(tmp_path)


@pytest.fixture(scope="session")
def small_result(tmp_path_factory):
    """The folder of a real analysis, made once: nine small frames of a square that moves; read only."""
    folder = tmp_path_factory.mktemp("small")
    bag = BagMaker(folder)(frames=9)
    words = ["analyze", str(bag), "--image", "/camera/image_raw", "--depth", "/camera/depth", "--masks", "/camera/mask"]
    quick = ["--preset", "fast", "--set", "window.length=4", "--set", "window.horizon=6", "--set", "run.threads=1"]
    assert main([*words, "--odometry", "/odom", *quick, "--out", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture
def make_images(tmp_path):
    """Writes `frames` PNG images (and masks, depth) into folders; the folder of the images."""

    def make(frames=10, name="images", sizes=None):
        for folder in (name, "masks", "depth"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for index in range(frames):
            width, height = (WIDTH, HEIGHT) if sizes is None else sizes[index]
            rgb, labels = scene(index, width, height)
            cv2.imwrite(str(tmp_path / name / f"img{index}.png"), rgb[..., ::-1])
            cv2.imwrite(str(tmp_path / "masks" / f"m{index}.png"), labels)
            cv2.imwrite(str(tmp_path / "depth" / f"d{index}.png"), np.full((height, width), 1500, np.uint16))
        return tmp_path / name

    return make


@pytest.fixture
def topics():
    """Source options that name every usual topic."""
    from motion4d_ros.offline.sources import SourceOptions

    return SourceOptions(
        image="/camera/image_raw", camera_info="/camera/camera_info", depth="/camera/depth", masks="/camera/mask",
        odometry="/odom",
    )  # fmt: skip


@pytest.fixture
def case(shared, tmp_path):
    """Makes case N in the test's folder; its commands as lists of words (without `motion4d`)."""

    def make(number: int) -> list[list[str]]:
        scripts = sorted((shared / "cases").glob(f"{number:02d}_*.py"))
        if not scripts:
            pytest.skip(f"no case {number} at {shared}/cases")
        done = subprocess.run([sys.executable, scripts[0], tmp_path], capture_output=True, text=True, check=True)
        line = next(line for line in done.stdout.splitlines() if line.startswith("command"))
        return [shlex.split(text)[1:] for text in line.split(":", 1)[1].split(";")]

    return make


class WasRead(BaseException):
    """Ends an analysis once its recording has been read: what the engine makes of it is tested elsewhere."""


@pytest.fixture
def read(monkeypatch, tmp_path):
    """Runs `motion4d WORDS …` up to the engine; (frames, report of the source)."""

    def run(words):
        results = []

        def open_and_read(path, options):
            source = open_source(path, options)
            try:
                results.append((list(source), source.report))
            finally:
                source.close()
            raise WasRead

        monkeypatch.setattr("motion4d_ros.offline.analyze.open_source", open_and_read)
        words = [str(word) for word in words]
        with pytest.raises(WasRead):
            status = main([*words, *([] if "--out" in words else ["--out", str(tmp_path / "out")])])
            pytest.fail(f"ended with status {status}")
        return results[0]

    return run


@pytest.fixture
def refused(tmp_path, capfd):
    """Runs `motion4d WORDS …`, which must be refused; the one line that says why."""

    def run(words):
        capfd.readouterr()
        words = [str(word) for word in words]
        assert main([*words, *([] if "--out" in words else ["--out", str(tmp_path / "out")])]) == 2
        lines = capfd.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and "Traceback" not in lines[0], lines
        assert not (tmp_path / "out").exists()
        return lines[0]

    return run
