"""`motion4d render`: pictures of a small saved scene, the paths of its camera, and what is refused."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from motion4d_ros.cli import main
from motion4d_ros.offline.novel_views.paths import PathOptions, plan, stabilised
from motion4d_ros.offline.novel_views.pictures import sized
from motion4d_ros.offline.novel_views.saved_scene import open_scene
from motion4d_ros.offline.sources.quiet import quiet_opencv
from motion4d_ros.types import Camera
from motion4d_ros.viewer import palette


def images(folder):
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.glob("*.png"))]


def line_of(capsys, *words):
    """The one line that refuses the words."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def saved(small_result):
    return open_scene(small_result)


def test_given_path_shows_what_the_camera_saw(small_result, saved, tmp_path):
    for kind in ("rgb", "depth", "labels"):
        assert main(["render", str(small_result), "--out", str(tmp_path / kind), "--what", kind]) == 0
    rgb, depth, labels = (images(tmp_path / kind) for kind in ("rgb", "depth", "labels"))
    assert len(rgb) == len(depth) == len(labels) == len(saved.frames)
    assert rgb[0].shape == (32, 48, 3) and depth[0].dtype == labels[0].dtype == np.uint16
    for number, index in enumerate(saved.frames):
        believed = cv2.imread(str(small_result / "masks" / f"{index:06d}.png"), cv2.IMREAD_UNCHANGED)
        both = ((labels[number] == 3) & (believed == 3)).sum()
        assert set(np.unique(labels[number])) <= {0, 3}
        assert both > 0.7 * ((labels[number] == 3) | (believed == 3)).sum()
        drawn = depth[number][depth[number] > 0]
        assert drawn.size > 0.8 * depth[number].size and 1800 < np.median(drawn) < 2200  # the bag's 2 m, in mm


def test_video_of_the_labels_has_the_colours_of_the_objects(small_result, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    video = tmp_path / "new" / "labels.mp4"
    words = ["render", str(small_result), "--out", str(video), "--what", "labels", "--size", "97x65", "--fps", "5"]
    assert main(words) == 0
    with quiet_opencv():  # FFmpeg takes its log level from the first that is opened
        capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FPS) == 5 and capture.get(cv2.CAP_PROP_FRAME_WIDTH) == 98
    good, frame = capture.read()
    near = np.abs(frame[..., ::-1].astype(int) - palette.rgb(3)).max(-1) < 40
    assert good and near.mean() > 0.02
    assert [path.name for path in video.parent.iterdir()] == ["labels.mp4"]  # nothing unfinished


def test_a_frozen_instant_stays(small_result, saved, tmp_path):
    frame = saved.frames[2]
    words = ["render", str(small_result), "--out", str(tmp_path / "o"), "--path", "orbit", "--freeze", str(frame)]
    assert main([*words, "--fps", "2"]) == 0
    around = images(tmp_path / "o")
    assert len(around) == 8 and not np.array_equal(around[0], around[2])
    assert main(["render", str(small_result), "--out", str(tmp_path / "g")]) == 0
    assert np.array_equal(around[0], images(tmp_path / "g")[2])  # an orbit starts where the camera was


@pytest.mark.parametrize("degrees", [40.0, 360.0])
def test_an_orbit_keeps_its_distance(saved, degrees):
    steps = plan(saved, PathOptions("orbit", float(saved.frames[0]), degrees), 10.0)
    start = steps[0].T_map_cam
    centres = np.stack([step.T_map_cam[:3, 3] for step in steps])
    axes = np.stack([step.T_map_cam[:3, 2] for step in steps])
    # the point on all optical axes: least squares over the lines
    projections = np.eye(3) - axes[:, :, None] * axes[:, None]
    middle = np.linalg.solve(projections.sum(0), (projections @ centres[..., None]).sum(0))[:, 0]
    distances = np.linalg.norm(centres - middle, axis=1)
    assert np.allclose(distances, distances[0], rtol=1e-6)
    turns = [Rotation.from_matrix(s.T_map_cam[:3, :3] @ start[:3, :3].T).magnitude() for s in steps]
    assert np.degrees(max(turns)) == pytest.approx(degrees / 2, rel=0.02)  # either side, or all the way round


def test_stabilised_is_smoother_and_goes_the_same_way():
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (60, 1, 1))
    poses[:, 0, 3] = 0.1 * np.arange(60)
    shake = Rotation.from_rotvec(0.02 * rng.normal(size=(60, 3)))
    poses[:, :3, :3] = (shake * Rotation.from_rotvec(np.outer(np.linspace(3.0, 3.4, 60), [0, 0, 1]))).as_matrix()
    poses[:, :3, 3] += 0.02 * rng.normal(size=(60, 3))
    smooth = stabilised(poses, 5.0)

    def shaking(T):
        turn = Rotation.from_matrix(T[1:, :3, :3]) * Rotation.from_matrix(T[:-1, :3, :3]).inv()
        return np.linalg.norm(np.diff(T[:, :3, 3], 2, axis=0)), turn.magnitude().mean()

    assert np.all(np.array(shaking(smooth)) < 0.4 * np.array(shaking(poses)))
    assert np.abs(smooth[10:-10, :3, 3] - poses[10:-10, :3, 3]).max() < 0.1
    assert (
        Rotation.from_matrix(smooth[:, :3, :3]).inv() * Rotation.from_matrix(poses[:, :3, :3])
    ).magnitude().max() < 0.2
    assert np.allclose(stabilised(poses, 0.0), poses)


def test_other_shapes_show_all_that_was_seen():
    camera = sized(Camera(100.0, 100.0, 60.0, 40.0, 120, 90), (480, 180))
    assert (camera.width, camera.height, camera.fx) == (480, 180, 200.0)
    assert camera.cx == pytest.approx(239.5 + 2 * (60 - 59.5)) and camera.cy == pytest.approx(89.5 + 2 * (40 - 44.5))


def vertices(path):
    """The rows of a binary `.ply`, by the names in its header."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    kinds = {"float": "<f4", "uchar": "u1"}
    lines = [line.split() for line in header.decode().splitlines() if line.startswith("property")]
    return np.frombuffer(body, [(name, kinds[kind]) for _, kind, name in lines])


def test_ply_sequence_moves(small_result, saved, tmp_path):
    assert main(["render", str(small_result), "--ply", str(tmp_path / "ply")]) == 0
    first, last = saved.frames[0], saved.frames[-1]
    names = {f"{index:06d}.ply" for index in saved.frames} | {"static.ply", "moving.npz"}
    assert {path.name for path in (tmp_path / "ply").iterdir()} == names
    begin, end = (vertices(tmp_path / "ply" / f"{index:06d}.ply") for index in (first, last))
    assert len(begin) == len(end) == len(saved.scene.moving_rows) > 0
    rows, scene = saved.scene.moving_rows, saved.scene
    for ply, index in ((begin, first), (end, last)):
        xyz = np.stack([ply[name] for name in "xyz"], 1)
        assert np.allclose(xyz, scene.at(float(index)).means[rows].detach().numpy(), atol=1e-5)
    assert np.abs(begin["x"] - end["x"]).max() > 0.01
    shown = np.stack([begin[name] for name in ("red", "green", "blue")], 1)
    assert np.abs(shown / 255 - scene.params["colors"][rows].detach().numpy().clip(0, 1)).max() < 0.01
    with np.load(tmp_path / "ply" / "moving.npz", allow_pickle=False) as packed:
        assert packed["xyz"].shape == (len(rows), len(saved.frames), 3)
        assert np.allclose(packed["xyz"][:, -1, 0], end["x"], atol=1e-5) and set(packed["object_id"]) == {3}
    assert len(vertices(tmp_path / "ply" / "static.ply")) == len(vertices(small_result / "scene.ply"))


def test_a_scene_alone_is_seen_from_an_orbit_only(small_result, tmp_path, capsys):
    shutil.copytree(small_result / "scene", tmp_path / "scene")
    for place in (tmp_path / "scene", tmp_path / "scene" / "scene.safetensors"):
        assert "needs trajectory.tum" in line_of(capsys, "render", place, "--out", tmp_path / "x")
    words = ["render", str(tmp_path / "scene"), "--path", "orbit", "--freeze", "5", "--fps", "1", "--size", "64x48"]
    assert main([*words, "--out", str(tmp_path / "o")]) == 0
    assert max(image.max() for image in images(tmp_path / "o")) > 50  # something is in view


def test_refusals_are_one_line(small_result, tmp_path, capsys):
    out = tmp_path / "v.mp4"
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "d.mp4").mkdir()
    (tmp_path / "scene.safetensors").write_bytes(b"nonsense")
    for words, said in (
        ([small_result], "say where to: --out"),
        ([small_result, "--out", out, "--freeze", "0"], "frame 0 is not in the saved scene: it holds frames 3 to 8"),
        ([small_result, "--out", out, "--freeze", "nan"], "frame nan is not in the saved scene"),
        ([tmp_path / "nowhere", "--out", out], "no such file or folder"),
        ([tmp_path / "empty", "--out", out], "holds no scene"),
        ([tmp_path / "scene.safetensors", "--out", out], "damaged scene file"),
        ([small_result, "--out", tmp_path / "v.gif"], "name a video (.mp4"),
        ([small_result, "--out", tmp_path / "file" / "v.mp4"], "is a file, a folder is needed"),
        ([small_result, "--ply", tmp_path / "file"], "is a file, a folder is needed"),
        ([small_result, "--out", tmp_path / "d.mp4"], "is a folder, and its name is that of a file"),
        ([small_result, "--out", "/proc/v.mp4"], "cannot be written"),
        ([small_result, "--out", out, "--size", "0x9"], "expected WIDTHxHEIGHT"),
        ([small_result, "--out", out, "--fps", "-1"], "--fps -1: must lie in"),
        ([small_result, "--out", out, "--path", "spiral"], "invalid choice: 'spiral'"),
    ):
        assert said in line_of(capsys, "render", *words)
    assert not out.exists()
