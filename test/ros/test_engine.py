"""The node with the real engine in a process of its own, seen from another: steady ids, all stages, true masks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from harness import Harness
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.lifecycle import TransitionCallbackReturn
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CameraInfo, PointCloud2

from motion4d_ros.evaluation.metrics import score_masks
from motion4d_ros.evaluation.synthetic import SyntheticScene, make_scene, write_bag
from motion4d_ros.ros.diagnostics import assess
from motion4d_ros.ros.engine import make_engine
from motion4d_ros.ros.outputs import messages
from motion4d_ros.ros_tools.demo.command import main as demo
from motion4d_ros.ros_tools.demo.results import Said, read_results

SMALL = [
    "window.length=4", "fit.motion_iterations=8", "fit.semantic_iterations=4", "fit.global_iterations=6",
    "fit.final_iterations=6", "geometry.iterations=3", "budget.max_static=1500", "budget.max_dynamic=800",
]  # fmt: skip


GIVEN = {"masks.source": "topic", "depth.source": "topic", "pose.source": "odometry"}


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene("tabletop_like", seed=1, frames=12, size=(96, 128))


@pytest.fixture(scope="module")
def said(scene: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Said, Path]]:
    """What the node says when the demo plays it the scene."""
    folder = tmp_path_factory.mktemp("demo")
    write_bag(scene, folder / "given")
    usual = os.environ["ROS_DOMAIN_ID"]
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)  # the demo's node has a fixed name: not two in one domain
    settings = [word for setting in SMALL for word in ("--set", setting)]
    arguments = ["--out", str(folder / "out"), "--bag", str(folder / "given"), "--image", "/camera/image_raw"]
    inputs = ["--depth", "/camera/depth", "--masks", "/camera/mask", "--odometry", "/odom", "--rate", "0.5"]
    assert demo([*arguments, *inputs, *settings]) == 0, (folder / "out.new" / "node.log").read_text()
    yield read_results(folder / "out" / "output"), folder / "out"
    os.environ["ROS_DOMAIN_ID"] = usual


def test_every_frame_is_reported_at_every_stage(said: tuple[Said, Path], scene: SyntheticScene) -> None:
    results, _ = said
    stamps = [int(stamp) for stamp in scene.stamps_ns]
    assert results.stamps == stamps
    for stage in ("live", "window"):
        assert sorted(results.masks[stage]) == stamps, stage
        assert sorted(results.objects[stage]) == stamps, stage
    status = results.status
    assert status.received == status.processed == len(stamps) and status.windows == 3 and status.refinements >= 1
    assert status.scale == "metric" and status.gaussians_static > 0 and status.gaussians_dynamic > 0


def test_a_second_process_sees_the_objects_with_steady_ids(said: tuple[Said, Path], scene: SyntheticScene) -> None:
    results, _ = said
    final = [{item.id for item in results.objects["final"][stamp]} for stamp in results.stamps]
    steady = set.intersection(*final[2:])
    assert len(steady) >= 2, final
    masks = np.stack([results.masks["final"][stamp] for stamp in results.stamps]).astype(np.int64)
    score = score_masks(masks, scene.masks.astype(np.int64))
    given = score_masks(scene.in_masks.astype(np.int64), scene.masks.astype(np.int64))
    assert score.J > 0.5 and score.flips <= given.flips
    for stamp, pose in results.poses.items():
        assert np.allclose(pose, scene.T_map_cam[list(scene.stamps_ns).index(stamp)], atol=1e-5)


def test_the_moving_points_are_where_the_objects_are(said: tuple[Said, Path], scene: SyntheticScene) -> None:
    results, _ = said
    at = len(results.stamps) - 1
    cloud = results.clouds["final"][results.stamps[at]]
    assert len(cloud.point_id) > 50 and len(set(cloud.point_id)) == len(cloud.point_id)
    T_cam_map = np.linalg.inv(scene.T_map_cam[at])
    uv = scene.camera.project(cloud.xyz_map @ T_cam_map[:3, :3].T + T_cam_map[:3, 3]).round()
    inside = np.isfinite(uv).all(-1) & (uv >= 0).all(-1) & (uv < (scene.camera.width, scene.camera.height)).all(-1)
    x, y = uv[inside].astype(int).T
    assert (scene.masks[at][y, x] > 0).mean() > 0.6


def test_the_demo_leaves_pictures_and_a_page(said: tuple[Said, Path]) -> None:
    _, out = said
    for name, least in (("overlay.png", 10_000), ("demo.mp4", 5_000), ("report.html", 20_000)):
        assert (out / name).stat().st_size > least, name
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "12 received = 12 processed" in page and "data:video/mp4" in page
    with AnyReader([out / "output"]) as reader:
        assert {c.topic for c in reader.connections} >= {"/motion4d/tracked_objects", "/motion4d/static_points"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_process_in_order(number: signal.Signals, tmp_path: Path) -> None:
    log = (tmp_path / "log").open("w+")
    command = [sys.executable, "-m", "motion4d_ros.ros.main", "--ros-args", "-p", "autostart:=true"]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 90
        while "active:" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:  # from the terminal, and again from `ros2 launch`
            process.send_signal(number)
            time.sleep(0.02)
        assert process.wait(1) == 0, (tmp_path / "log").read_text()
        assert not any(child.is_running() for child in children)
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        process.kill()
        log.close()


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("window.length:=1000", "window.length"),
        ("window.length:=text", "window.length"),
        ("masks.source:=guess", "choose one of"),
        ("base_to_camera:=1 2", "seven numbers"),
        ("depth.minimum:=200.0", "below depth.maximum"),
    ],
)
def test_a_start_with_wrong_parameters_ends_with_one_line_and_status_two(setting: str, complaint: str) -> None:
    command = [sys.executable, "-m", "motion4d_ros.ros.main", "--ros-args", "-p", setting]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    lines = [line for line in done.stderr.splitlines() if line.startswith("motion4d_node:")]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert complaint in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", ["geometry", "steps", "refinement"])
def test_deactivation_in_the_middle_of_real_work(
    harness: Callable[..., Harness], scene: SyntheticScene, stage: str
) -> None:
    """Minutes of work are in the way: frames get their live estimates meanwhile, and the end comes at a pause."""
    many = {
        "geometry": "geometry.static_points",
        "steps": "fit.motion_iterations",
        "refinement": "fit.final_iterations",
    }
    small = {"window.length": 2, "window.horizon": 6, "fit.motion_iterations": 4, "fit.semantic_iterations": 4}
    h = harness(engine=make_engine, parameters={**small, many[stage]: 50_000, **GIVEN})
    h.connect()
    send_scene(h, scene, 3)
    engine = h.engine
    if stage == "refinement":
        assert h.until(lambda: h.node.health().windows >= 1, 60.0)
        worker = h.node.worker
        asked = worker.submit(lambda _: worker.refine_now())
        assert h.until(lambda: engine.mapper.trainer.iterations > 20, 60.0)
    else:
        assert h.until(lambda: engine.mapper.seconds or engine.yield_point.seconds > 0, 60.0), "in the fit"
    send_scene(h, scene, 9, start=3, pace_s=0.01)  # before this window can end
    assert h.settled(12, 60.0).processed == 12, "every frame is told about while the work goes on"
    assert h.until(lambda: engine.health.frames == 12, 60.0), "counted in the next pause"
    assert engine.health.live_only >= 9 - 2 - 2, "at most a window's worth was kept"
    worker = h.node.worker
    assert h.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert not worker.alive and h.counts().queued == 0
    assert not worker.report.exceptions, worker.report
    if stage == "refinement":
        assert asked.done()
    h.node.config.set(many[stage], 20)
    engine.config.set(many[stage], 20)
    assert h.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert len(h.engines) == 1, "it heard, and was not interrupted: the same engine goes on, with a new scene"
    send_scene(h, scene, 4)
    assert h.until(lambda: h.node.worker.engine.health.windows > 0 and h.counts().processed == 4, 60.0)
    assert not h.node.worker.report.exceptions, h.node.worker.report


@pytest.mark.parametrize("where", ["geometry", "intake"])
def test_a_worker_that_dies_is_restarted_once_and_ids_go_on(
    harness: Callable[..., Harness], scene: SyntheticScene, where: str
) -> None:
    """The real engine dies of what no `except Exception` catches: in mid-window, or while it takes a frame in."""
    settings = {k: int(v) for k, v in (setting.split("=") for setting in SMALL)}
    h = harness(engine=make_engine, parameters={**settings, **GIVEN, "budget.mode": "lossless"})
    h.listen("tracked_points")
    h.connect()
    send_scene(h, scene, 4)
    assert h.until(lambda: h.node.health().windows == 1 and h.counts().queued == 0, 60.0)
    assert h.until(lambda: any(m.width for m in h.heard["tracked_points"]))
    used = {int(i) for m in h.heard["tracked_points"] for i in point_ids(m)}

    kill_once(h.engine, where)
    send_scene(h, scene, 4, start=4)
    assert h.until(lambda: h.node.watch.restarts == 1 and h.node.worker.alive, 60.0)
    h.settled(8, 60.0)
    h.heard["tracked_points"].clear()
    send_scene(h, scene, 4, start=8)
    assert h.until(lambda: h.node.health().windows >= 2, 60.0), "a new scene is fitted"
    assert h.until(lambda: any(m.width for m in h.heard["tracked_points"]))
    assert used.isdisjoint(int(i) for m in h.heard["tracked_points"] for i in point_ids(m)), "ids are never reused"
    codes = {finding.rule.code for finding in assess(h.node.snapshot())}
    assert "worker_restarted" in codes and "SystemExit: killed" in h.node.worker.report.last_exception
    assert h.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS and h.counts().queued == 0
    assert h.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    for turn in range(2):
        kill_once(h.engine, "intake")
        send_scene(h, scene, 1, start=turn)
        died = turn + 1  # counted: the moment in which it is dead may pass between two looks
        assert h.until(lambda n=died: h.counts().dropped == {"worker died": n}, 60.0), "no frame is left in its hands"
        assert h.until(lambda n=turn: h.node.worker.alive == (n == 0), 60.0), "restarted once"
    assert "worker_dead" in {finding.rule.code for finding in assess(h.node.snapshot())}
    assert h.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS and h.counts().queued == 0


def test_one_argument_is_enough(harness: Callable[..., Harness], scene: SyntheticScene) -> None:
    """Images and their calibration alone: poses, depth and objects are found, and nothing is rejected."""
    settings = dict(setting.split("=") for setting in SMALL)
    h = harness(engine=make_engine, parameters={**{k: int(v) for k, v in settings.items()}, "budget.mode": "lossless"})
    h.listen("tracked_objects", "camera_pose", "status")
    h.connect()
    send_scene(h, scene, 8)
    counts = h.settled(8, 120.0)
    assert counts.processed == 8, (counts, h.node.worker.report)
    assert h.until(lambda: h.node.health().windows == 2, 120.0)
    assert not h.node.worker.report.exceptions, h.node.worker.report
    assert len({m.header.stamp.nanosec for m in h.heard["camera_pose"]}) == 8
    assert h.heard["tracked_objects"][-1].scale in ("relative", "unknown")


@pytest.mark.parametrize("depth", ["topic", "geometry"])
def test_a_camera_on_a_tripod(harness: Callable[..., Harness], depth: str) -> None:
    """With a depth camera lengths are metres; without one, what is told live stays in front of the camera."""
    tripod = make_scene("leave_return", seed=1, frames=12, size=(72, 96))
    settings = {name: int(value) for name, value in (setting.split("=") for setting in SMALL)}
    sources = {"masks.source": "topic", "depth.source": depth, "pose.source": "visual"}
    h = harness(engine=make_engine, parameters={**settings, **sources, "budget.mode": "lossless"})
    h.listen("tracked_objects", "status")
    h.connect()
    send_scene(h, tripod, 12)
    assert h.settled(12, 240.0).processed == 12, h.node.worker.report
    assert h.until(lambda: h.node.health().windows == 3, 240.0)
    expected = "metric" if depth == "topic" else "unknown"
    assert h.until(lambda: bool(h.heard["status"]) and h.heard["status"][-1].scale == expected, 20.0)
    assert ("scale_unknown" in {finding.rule.code for finding in assess(h.node.snapshot())}) == (depth == "geometry")
    told = [message for message in h.heard["tracked_objects"] if message.objects]
    assert {message.stage for message in told} >= {"live", "window"}
    assert {message.scale for message in told} == {expected}
    for item in (each for message in told for each in message.objects):
        at, moving = item.pose.pose.position, item.twist.twist.linear
        assert at.z > 0
        along = (at.x * moving.x + at.y * moving.y + at.z * moving.z) / np.linalg.norm([at.x, at.y, at.z])
        if depth == "geometry":
            assert along == pytest.approx(0.0, abs=1e-5)
            assert item.twist.covariance[14] > 1.0 and item.pose.covariance[14] > 0.5, "large along z"


def kill_once(engine: Any, where: str) -> None:
    """Lets the engine's `intake`, or the `geometry` of its windows, raise what no `except Exception` catches."""
    owner, name = (engine.intake, "take") if where == "intake" else (engine.mapper.geometry, "update")

    def die(*args: object) -> None:
        delattr(owner, name)  # the method of its class is back
        raise SystemExit("killed")

    setattr(owner, name, die)


def point_ids(cloud: PointCloud2) -> NDArray[np.uint32]:
    """The `point_id` of every point."""
    offset = next(field.offset for field in cloud.fields if field.name == "point_id")
    rows = np.frombuffer(bytes(cloud.data), np.uint8).reshape(-1, cloud.point_step)
    return np.ascontiguousarray(rows[:, offset : offset + 4]).view(np.uint32)[:, 0]


def send_scene(h: Harness, scene: SyntheticScene, frames: int, start: int = 0, pace_s: float = 0.1) -> None:
    """Some frames of the scene as messages, with whatever inputs the node has asked for."""
    K, size = scene.camera.K, scene.camera
    for t in range(start, start + frames):
        head = messages.header(int(scene.stamps_ns[t]), "camera_optical")
        info = CameraInfo(header=head, width=size.width, height=size.height, distortion_model="plumb_bob", d=[0.0] * 5)
        info.k, info.p = K.reshape(-1), np.hstack([K, np.zeros((3, 1))]).reshape(-1)
        h.publisher("camera/camera_info", CameraInfo).publish(info)
        if "depth" in h.node.inputs.topics:
            depth = messages.image_message(scene.in_depth_m[t].astype(np.float32), "32FC1", head)
            h.publisher("depth").publish(depth)
        if "masks" in h.node.inputs.topics:
            h.publisher("masks").publish(messages.image_message(scene.in_masks[t], "16UC1", head))
        if "odometry" in h.node.inputs.topics:
            pose = Odometry(header=messages.header(int(scene.stamps_ns[t]), "map"), child_frame_id="camera_optical")
            pose.pose.pose = messages.pose_message(scene.T_map_cam[t])
            h.publisher("odometry", Odometry).publish(pose)
        h.publisher("camera/image_raw").publish(messages.image_message(scene.images[t], "rgb8", head))
        time.sleep(pace_s)
