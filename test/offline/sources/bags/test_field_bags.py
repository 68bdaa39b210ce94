"""Bags from the field: what drivers, clocks and recorders really write, each kind with the right value."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from motion4d_ros import cli
from motion4d_ros.offline.sources import SourceOptions, open_source
from motion4d_ros.types import Frame, Motion4DError

from .field_bags import FFMPEG, FOCAL, FOXGLOVE, HEIGHT, STEP, T0, WIDTH, FieldBag, S, picture, realsense


def read(path: Path, **options) -> tuple[list[Frame], dict, str]:
    """The frames of a bag, what was used, and all that was said."""
    source = open_source(path, SourceOptions(**options))
    try:
        frames = list(source)
        return frames, source.report.used, " | ".join(source.report.sentences())
    finally:
        source.close()


def stamps_s(frames: list[Frame]) -> list[float]:
    return [round((frame.stamp_ns - T0) * 1e-9, 3) for frame in frames]


# -- the cases that users reported -----------------------------------------------------------------------


@pytest.fixture
def case(shared_data, tmp_path):
    """Makes a case and reads the recordings that its commands name."""

    def run(number: str) -> list:
        (script,) = (shared_data.parent / "cases").glob(f"{number}_*.py")
        told = subprocess.run([sys.executable, script, tmp_path / "case"], capture_output=True, text=True, check=True)
        line = next(line for line in told.stdout.splitlines() if line.startswith("command"))
        results = []
        for command in line.partition(":")[2].split(" ; "):
            words = shlex.split(command)[1:]
            given = cli._parser(words).parse_args(words)
            try:
                results.append(read(given.input, image=given.image, depth=given.depth, masks=given.masks))
            except Motion4DError as error:
                results.append(str(error))
        return results

    def make(number: str) -> list:
        if not (shared_data.parent / "cases").is_dir():
            pytest.skip("no cases beside the data")
        return run(number)

    return make


def test_a_mosaic_that_was_compressed_as_it_is(case):
    ((frames, _, _),) = case("20")
    colours = frames[0].image.reshape(-1, 3).astype(float)
    assert len(frames) == 10 and np.ptp(colours.mean(0)) > 10  # the made-up picture is reddish; its mosaic is grey


def test_calibration_that_comes_once_and_late(case):
    ((frames, _, _),) = case("22")
    assert stamps_s(frames) == [round(0.1 * k, 3) for k in range(20)] and frames[0].camera.fx == 320.0


def test_every_message_twice(case):
    ((frames, _, said),) = case("25")
    assert stamps_s(frames) == [round(0.1 * k, 3) for k in range(10)]
    assert all(frame.depth_m is not None and (frame.masks == 1).any() for frame in frames)
    assert "the stamp of another (recorded or published twice): left out (10 times)" in said


def test_float_depth_in_millimetres(case):
    ((frames, _, said),) = case("27")
    assert np.isclose(frames[0].depth_m.max(), 4.0) and "cannot be metres: read as mm" in said


def test_messages_compressed_one_by_one_without_metadata(case):
    whole, copied = case("31")
    assert len(copied[0]) == 10
    assert all(np.array_equal(a.image, b.image) for a, b in zip(whole[0], copied[0], strict=True))


def test_encodings_that_drivers_write(case):
    bgr, bayer, i420, nv24, rgb, empty = case("33")
    reference = bgr[0][0].image.astype(float)
    assert np.abs(i420[0][0].image - reference).mean() < 3 and np.array_equal(rgb[0][0].image, bgr[0][0].image)
    assert len(bayer[0]) == 4
    assert "nv24" in nv24 and "need 230400" in nv24
    assert "no usable image on /camera/image_raw" in empty and "leaves it empty: set it to" in empty


def test_the_only_image_topic_is_taken_whatever_the_robot_is_called(case):
    mir, segway = case("34")
    assert mir[1]["image"] == "/mir/camera_floor/color/image_raw" and len(mir[0]) == 4
    assert segway[1]["image"] == "/segway/front/image_raw" and len(segway[0]) == 4


def test_images_recorded_out_of_order(case):
    ((frames, _, said),) = case("36")
    assert stamps_s(frames) == [round(0.1 * k, 3) for k in range(12)] and not said
    boxes = [np.argwhere(frame.masks == 1)[:, 1].mean() for frame in frames]
    steps = np.diff(boxes)
    assert (steps < 0).all() and np.ptp(steps) < 3  # it moves evenly to the left
    assert all(np.isclose(frame.depth_m[frame.masks == 1], 2.0).all() for frame in frames)


# -- time ------------------------------------------------------------------------------------------------


def test_a_late_image_does_not_double_the_time_of_the_others(tmp_path):
    bag = FieldBag()
    for k in range(30):
        bag.image("/camera/image_raw", picture(k), "rgb8", k * STEP, at=k * STEP + (9 * STEP if k == 4 else 0))
    bag.info("/camera/camera_info", 0)
    frames, _, said = read(bag.write(tmp_path / "bag"))
    assert stamps_s(frames) == [round(0.1 * k, 3) for k in range(30) if k != 4]
    assert "recorded more than 0.5 s late" in said


def test_stamps_of_zero_give_way_to_the_times_of_recording(tmp_path):
    bag = FieldBag()
    for k in range(10):
        bag.image("/camera/image_raw", picture(k), "rgb8", 0, at=k * STEP, absolute=True)
        bag.image(
            "/camera/depth",
            np.full((HEIGHT, WIDTH), 1000 + k, np.uint16),
            "16UC1",
            k * STEP - 30_000_000,
            at=k * STEP + 1000,
        )
    bag.info("/camera/camera_info", 0)
    frames, _, said = read(bag.write(tmp_path / "bag"))
    assert stamps_s(frames) == [round(0.1 * k, 3) for k in range(10)]
    assert [round(float(frame.depth_m[0, 0]), 3) for frame in frames] == [round(1 + 0.001 * k, 3) for k in range(10)]
    assert "/camera/image_raw: its stamps are zero or stand still" in said


def test_depth_by_the_clock_of_its_own_device(tmp_path):
    bag = FieldBag()
    for k in range(10):
        bag.image("/camera/image_raw", picture(k), "rgb8", k * STEP)
        depth = np.full((HEIGHT, WIDTH), 1000 + k, np.uint16)
        bag.image("/camera/depth", depth, "16UC1", 5 * S + k * STEP, at=k * STEP + 5_000_000, absolute=True)
    bag.info("/camera/camera_info", 0)
    frames, _, said = read(bag.write(tmp_path / "bag"))
    assert [round(float(frame.depth_m[0, 0]), 3) for frame in frames] == [round(1 + 0.001 * k, 3) for k in range(10)]
    assert "/camera/depth: its stamps are" in said and "two clocks?" in said


def test_a_clock_that_is_set_keeps_what_belongs_together(tmp_path):
    bag = FieldBag()
    for k in range(20):
        stamp = k * STEP + (7200 * S if k >= 10 else 0)
        bag.image("/camera/image_raw", picture(k), "rgb8", stamp, at=k * STEP)
        bag.image("/camera/depth", np.full((HEIGHT, WIDTH), 1000 + k, np.uint16), "16UC1", stamp, at=k * STEP + 1000)
    bag.info("/camera/camera_info", 0)
    frames, _, said = read(bag.write(tmp_path / "bag"))
    assert len(frames) == 20 and stamps_s(frames)[9:11] == [0.9, 7201.0]
    assert [round(float(frame.depth_m[0, 0]), 3) for frame in frames] == [round(1 + 0.001 * k, 3) for k in range(20)]
    assert "jump forward by 7200.1 s" in said


# -- static facts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [-5 * S, 0, 950_000_000, 30 * S])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_calibration_holds_for_the_whole_recording_whenever_it_came(tmp_path, at, storage):
    bag = FieldBag()
    bag.camera(10)
    bag.messages = [message for message in bag.messages if "info" not in message[0]]
    bag.info("/camera/camera_info", at)
    frames, _, _ = read(bag.write(tmp_path / "bag", storage))
    assert len(frames) == 10 and all(frame.camera.fx == FOCAL for frame in frames)


def test_calibration_that_the_driver_did_not_know_at_first(tmp_path):
    bag = FieldBag()
    bag.camera(10)
    bag.messages = [message for message in bag.messages if "info" not in message[0]]
    for k in range(10):
        bag.info("/camera/camera_info", k * STEP, focal=0.0 if k < 4 else FOCAL)
    frames, _, said = read(bag.write(tmp_path / "bag"))
    assert frames[0].camera.fx == FOCAL and "changes midway" not in said


@pytest.mark.parametrize("how", ["tf_static late", "tf once", "tf at the end", "tf rarely", "tf always"])
def test_an_extrinsic_that_never_changes_holds_at_all_times(tmp_path, how):
    bag = FieldBag()
    bag.camera(30)
    for k in range(30):
        bag.odometry(k * STEP, (0.1 * k, 0.0, 0.0))
    times = {
        "tf_static late": [15 * STEP], "tf once": [2 * STEP], "tf at the end": [29 * STEP],
        "tf rarely": [0, 14 * STEP, 28 * STEP], "tf always": [k * STEP for k in range(30)],
    }[how]  # fmt: skip
    for at in times:
        bag.tf("base", "cam", at, (0.0, 0.2, 0.5), static=how == "tf_static late")
    frames, _, said = read(bag.write(tmp_path / "bag"), odometry="/odom")
    assert np.allclose([frame.T_map_cam[:3, 3] for frame in frames], [(0.1 * k, 0.2, 0.5) for k in range(30)])
    assert "no camera pose" not in said


def test_an_extrinsic_that_moves_is_followed(tmp_path):
    bag = FieldBag()
    bag.camera(10)
    for k in range(10):
        bag.odometry(k * STEP, (0.0, 0.0, 0.0))
        bag.tf("base", "cam", k * STEP, (0.0, 0.0, 0.01 * k))
    frames, _, _ = read(bag.write(tmp_path / "bag"), odometry="/odom")
    assert np.allclose([frame.T_map_cam[2, 3] for frame in frames], [0.01 * k for k in range(10)])


def test_poses_from_tf_with_a_link_that_was_said_once(tmp_path):
    bag = FieldBag()
    bag.camera(10)
    bag.tf("map", "odom", 5 * STEP, (10.0, 0.0, 0.0))
    bag.tf("base", "cam", 9 * STEP, (0.0, 0.0, 0.5), static=True)
    bag.messages[-1][2].transforms[0].header.stamp.sec -= 86_400  # said yesterday, when the driver was started
    for k in range(10):
        bag.tf("odom", "base", k * STEP, (0.1 * k, 0.0, 0.0))
    frames, _, said = read(bag.write(tmp_path / "bag"), use_tf=True)
    assert "clock" not in said
    assert np.allclose([frame.T_map_cam[:3, 3] for frame in frames], [(10 + 0.1 * k, 0.0, 0.5) for k in range(10)])


# -- which topic -----------------------------------------------------------------------------------------


def test_a_realsense_recording_needs_no_options(tmp_path):
    frames, used, said = read(realsense().write(tmp_path / "bag"))
    assert used["image"] == "/camera/camera/color/image_raw" and frames[0].camera.fx == FOCAL
    assert used["depth"] == "/camera/camera/aligned_depth_to_color/image_raw (found)"
    assert np.isclose(frames[0].depth_m[30, 40], 2.0) and frames[0].depth_m[15, 15] == 0
    assert "infra1" in said and "depth/image_rect_raw" not in said
    frames, used, _ = read(tmp_path / "bag", depth="none")
    assert frames[0].depth_m is None and "depth" not in used


def test_depth_of_the_other_camera_is_aligned(tmp_path):
    frames, used, _ = read(realsense(aligned=False).write(tmp_path / "bag"))
    assert used["depth"].startswith("/camera/camera/depth/image_rect_raw (found")
    assert used["depth"].endswith("aligned to the image by both calibrations")
    assert_wall_at_2_m(frames[0].depth_m)


def assert_wall_at_2_m(depth_m: np.ndarray) -> None:
    """The hole of the depth image (10 .. 19 px both ways), seen 15 mm to the right by a lens of 60 px for 40."""
    centre_x, centre_y = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    left, right = ((edge - centre_x) / 40.0 * 60.0 + centre_x - 60.0 * 0.015 / 2.0 for edge in (9.5, 19.5))
    top, bottom = ((edge - centre_y) / 40.0 * 60.0 + centre_y for edge in (9.5, 19.5))
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[max(0, round(top)) : round(bottom), max(0, round(left)) : round(right)] = True
    inside = cv2.erode(hole.astype(np.uint8), np.ones((3, 3))) > 0
    outside = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3))) == 0
    assert inside.sum() > 20 and not depth_m[inside].any()
    assert np.allclose(depth_m[outside], 2.0)


def test_depth_of_another_frame_is_never_used_as_if_registered(tmp_path):
    bag = realsense(aligned=False)
    bag.messages = [message for message in bag.messages if message[0] != "/tf_static"]
    bag.write(tmp_path / "bag")
    frames, used, said = read(tmp_path / "bag")
    assert frames[0].depth_m is None and "depth" not in used
    assert (
        "depth on /camera/camera/depth/image_rect_raw was not used: its frame is 'camera_depth_optical_frame'" in said
    )
    with pytest.raises(Motion4DError, match=r"no constant transform.*depth\.frame=camera_color_optical_frame"):
        read(tmp_path / "bag", depth="/camera/camera/depth/image_rect_raw")
    topic = "/camera/camera/depth/image_rect_raw"
    frames, used, _ = read(tmp_path / "bag", depth=topic, depth_frame="camera_color_optical_frame")
    assert used["depth"] == topic and np.isclose(frames[0].depth_m[30, 40], 2.0) and frames[0].depth_m[15, 15] == 0


def test_depth_of_another_frame_without_calibration_is_refused(tmp_path):
    bag = realsense(aligned=False)
    bag.messages = [message for message in bag.messages if message[0] != "/camera/camera/depth/camera_info"]
    bag.write(tmp_path / "bag")
    with pytest.raises(Motion4DError, match="without a camera_info for each"):
        read(tmp_path / "bag", depth="/camera/camera/depth/image_rect_raw")


def test_depth_in_the_same_frame_through_another_lens_is_aligned(tmp_path):
    bag = FieldBag()
    bag.camera(4)
    depth = np.full((HEIGHT, WIDTH), 2000, np.uint16)
    depth[:, 28:36] = 1000
    for k in range(4):
        bag.image("/camera/depth/image_raw", depth, "16UC1", k * STEP)
        bag.info("/camera/depth/camera_info", k * STEP, focal=30.0)
    frames, used, _ = read(bag.write(tmp_path / "bag"))
    assert "aligned" in used["depth"]
    near = np.nonzero(frames[0].depth_m[24] == 1.0)[0]  # 8 px through a lens of 30 px are 16 through one of 60
    assert len(near) == 16 and near.mean() == pytest.approx(31.5)


def test_depth_at_half_size_is_scaled(tmp_path):
    bag = FieldBag()
    bag.camera(4)
    depth = np.arange(1, HEIGHT * WIDTH // 4 + 1, dtype=np.uint16).reshape(HEIGHT // 2, WIDTH // 2) + 500
    for k in range(4):
        bag.image("/depth_registered/image_raw", depth, "16UC1", k * STEP)
        bag.info("/depth_registered/camera_info", k * STEP, size=(HEIGHT // 2, WIDTH // 2), focal=FOCAL / 2)
    frames, used, said = read(bag.write(tmp_path / "bag"))
    assert "aligned" not in used["depth"] and "depth of 32x24 px scaled" in said
    assert np.array_equal(frames[0].depth_m, np.kron(depth, np.ones((2, 2))).astype(np.float32) * np.float32(1e-3))


def test_transports_of_one_camera_are_one_camera(tmp_path):
    bag = FieldBag()
    bag.camera(4)
    for k in range(4):
        png = cv2.imencode(".png", picture(k)[..., ::-1])[1].tobytes()
        bag.compressed("/camera/image_raw/compressed", png, "rgb8; png compressed bgr8", k * STEP)
    assert read(bag.write(tmp_path / "bag"))[1]["image"] == "/camera/image_raw"


def test_only_depth_is_no_picture(tmp_path):
    bag = FieldBag()
    for k in range(4):
        bag.image("/camera/depth/image_raw", np.full((HEIGHT, WIDTH), 900, np.uint16), "16UC1", k * STEP)
    with pytest.raises(Motion4DError, match="no colour or grey images, only depth: /camera/depth/image_raw"):
        read(bag.write(tmp_path / "bag"))


def test_the_only_topic_of_a_thermal_camera(tmp_path):
    bag = FieldBag()
    for k in range(6):
        bag.image("/boson/thermal/ir/image_raw", 7200 + 2 * picture(k)[..., 0].astype(np.uint16), "16UC1", k * STEP)
    bag.info("/boson/thermal/ir/camera_info", 0)
    frames, used, said = read(bag.write(tmp_path / "bag"))
    assert used["image"] == "/boson/thermal/ir/image_raw" and "are shown as black to white" in said
    for k, frame in enumerate(frames):  # one range for all: the same value is the same grey everywhere
        seen = frame.image[..., 0].astype(float)
        assert (
            np.abs(np.polyval(np.polyfit(picture(k)[..., 0].ravel(), seen.ravel(), 1), picture(k)[..., 0]) - seen).max()
            < 1
        )
        assert seen.max() - seen.min() > 150
    same = [np.unique(frame.image[picture(k)[..., 0] == 128]) for k, frame in enumerate(frames)]
    assert all(len(values) == 1 for values in same) and len(np.unique(same)) == 1


# -- geometry --------------------------------------------------------------------------------------------


def test_a_region_of_interest_moves_the_principal_point(tmp_path):
    bag = FieldBag()
    for k in range(3):
        bag.image("/camera/image_raw", picture(k, 32, 24), "rgb8", k * STEP)
        bag.info("/camera/camera_info", k * STEP, roi=(10, 6, 32, 24))
    camera = read(bag.write(tmp_path / "bag"))[0][0].camera
    assert (camera.fx, camera.cx, camera.cy) == (FOCAL, 31.5 - 10, 23.5 - 6)


def test_binning_halves_the_focal_length(tmp_path):
    bag = FieldBag()
    for k in range(3):
        bag.image("/camera/image_raw", picture(k, 32, 24), "rgb8", k * STEP)
        bag.info("/camera/camera_info", k * STEP, binning=2)
    camera = read(bag.write(tmp_path / "bag"))[0][0].camera
    assert (camera.fx, camera.cx, camera.cy) == (FOCAL / 2, 15.5, 11.5)


@pytest.mark.parametrize("binning,roi", [(2, (0, 0, 0, 0)), (0, (4, 4, 32, 24)), (0, (50, 40, 64, 48))])
def test_a_camera_info_that_contradicts_the_images_is_refused(tmp_path, binning, roi):
    bag = FieldBag()
    bag.image("/camera/image_raw", picture(0), "rgb8", 0)
    bag.info("/camera/camera_info", 0, binning=binning, roi=roi)
    with pytest.raises(Motion4DError, match="region of interest"):
        read(bag.write(tmp_path / "bag"))


# -- lost reasons, files, options ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding, reason", [("mono12p", "packed samples"), ("rgb9", "unknown encoding 'rgb9'"), ("32FC1", "depth topic")]
)
def test_when_every_image_is_refused_the_reason_is_the_message(tmp_path, encoding, reason):
    bag = FieldBag()
    for k in range(3):
        pixels = picture(k)[..., 0].astype(np.float32) if encoding == "32FC1" else picture(k)
        bag.image("/camera/image_raw", pixels, encoding, k * STEP)
    bag.info("/camera/camera_info", 0)
    bag.write(tmp_path / "bag")
    with pytest.raises(Motion4DError, match=f"no usable image on /camera/image_raw: .*{reason}"):
        read(tmp_path / "bag", image="/camera/image_raw")


def test_one_damaged_message_costs_one_frame(tmp_path):
    bag = FieldBag()
    bag.camera(6)
    bag.store.serialize_cdr, whole = damaged_at(bag, 3), bag.store.serialize_cdr
    bag.write(tmp_path / "bag")
    frames, _, said = read(tmp_path / "bag")
    assert whole is not None and stamps_s(frames) == [0.0, 0.1, 0.2, 0.4, 0.5]
    assert "a message on /camera/image_raw cannot be read" in said


def damaged_at(bag, number):
    """`serialize_cdr` that breaks off in the middle of the image `number`."""
    original, seen = bag.store.serialize_cdr, []

    def run(message, kind):
        data = bytes(original(message, kind))
        if kind.endswith("/Image"):
            seen.append(kind)
            if len(seen) == number + 1:
                return data[:40]
        return data

    return run


@pytest.mark.parametrize(
    "storage,name", [("mcap", "x.db3"), ("sqlite3", "recording"), ("mcap", "recording.rosbag"), ("sqlite3", "x.mcap")]
)
def test_a_file_is_judged_by_its_content(tmp_path, storage, name):
    bag = FieldBag()
    bag.camera(4)
    folder = bag.write(tmp_path / "bag", storage)
    file = next(path for path in folder.iterdir() if path.suffix in (".mcap", ".db3"))
    shutil.copy(file, tmp_path / name)
    assert len(read(tmp_path / name)[0]) == 4
    (tmp_path / "inside").mkdir()
    shutil.copy(file, tmp_path / "inside" / "data")
    assert len(read(tmp_path / "inside")[0]) == 4


def test_a_ros1_bag_under_another_name(make_bag, tmp_path):
    make_bag(storage="ros1").rename(tmp_path / "recording.orig")
    assert len(read(tmp_path / "recording.orig")[0]) == 10


@pytest.mark.parametrize("keep", [True, False])
def test_a_bag_compressed_as_a_whole(tmp_path, keep):
    bag = FieldBag()
    bag.camera(4)
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, at, message in bag.messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=bag.store)
            writer.write(connections[topic], at, bag.store.serialize_cdr(message, message.__msgtype__))
    if keep:
        assert len(read(tmp_path / "bag")[0]) == 4
        return
    (tmp_path / "bag" / "metadata.yaml").unlink()
    file = next((tmp_path / "bag").iterdir())
    for path in (tmp_path / "bag", file):
        with pytest.raises(Motion4DError, match=rf"compressed as a whole: zstd -d {file.name}"):
            read(path)


def test_options_that_contradict_each_other_are_refused(make_bag):
    bag = make_bag()
    with pytest.raises(Motion4DError, match="--camera-info and --intrinsics"):
        read(bag, camera_info="/camera/camera_info", intrinsics=(40.0, 40.0, 23.5, 15.5))
    with pytest.raises(Motion4DError, match="--odometry and pose"):
        read(bag, odometry="/odom", use_tf=True)


def test_a_camera_that_was_never_calibrated_is_told(tmp_path):
    bag = FieldBag()
    bag.camera(3)
    bag.messages = [message for message in bag.messages if "info" not in message[0]]
    bag.info("/camera/camera_info", 0, focal=0.0)
    with pytest.raises(Motion4DError, match=r"not calibrated .* give --intrinsics"):
        read(bag.write(tmp_path / "bag"))


def test_depth_under_the_name_of_a_grey_encoding(tmp_path):
    bag = FieldBag()
    bag.camera(3)
    for k in range(3):
        bag.image("/camera/depth/image", np.full((HEIGHT, WIDTH), 1500, np.uint16), "mono16", k * STEP)
    frames, used, _ = read(bag.write(tmp_path / "bag"))
    assert used["depth"] == "/camera/depth/image (found)" and np.allclose(frames[0].depth_m, 1.5)


@pytest.mark.parametrize(
    "option", [{"poses": "x.tum"}, {"fps": 10.0}, {"image_glob": "*"}, {"depth_glob": "*"}, {"masks_glob": "*"}]
)
def test_options_that_are_not_for_bags_are_refused(make_bag, option):
    name = next(iter(option)).replace("_", "-")
    with pytest.raises(Motion4DError, match=f"is a bag, which takes no --{name}"):
        read(make_bag(), **option)


def test_depth_scale_and_depth_none_reach_a_bag(make_bag):
    frames, _, _ = read(
        make_bag(depth_encoding="16UC1", depth_value=2.0), depth="/camera/depth", depth_units_per_metre=500.0
    )
    assert np.allclose(frames[0].depth_m, 4.0)


# -- video -----------------------------------------------------------------------------------------------


def encoded(codec: str, count: int, tmp_path: Path) -> list[bytes]:
    """Pictures as access units of a video stream, by the encoder that `imageio-ffmpeg` brings along."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    file = tmp_path / f"stream.{codec}"
    pictures = b"".join(picture(k).tobytes() for k in range(count))
    library, extra = {"h264": ("libx264", []), "hevc": ("libx265", ["-x265-params", "log-level=none:aud=1"])}[codec]
    delimiter = ["-bsf:v", "h264_metadata=aud=insert"] if codec == "h264" else []
    command = [
        ffmpeg, "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "10",
        "-i", "-", "-c:v", library, *extra, "-pix_fmt", "yuv420p", "-crf", "10", "-tune", "zerolatency", "-g", "4",
        *delimiter, "-f", codec, str(file),
    ]  # fmt: skip
    done = subprocess.run(command, input=pictures, check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"this ffmpeg cannot encode {codec}")
    data, mark = file.read_bytes(), {"h264": b"\0\0\0\1\x09", "hevc": b"\0\0\0\1\x46"}[codec]
    begins = [at for at in range(len(data)) if data.startswith(mark, at)]
    units = [data[a:b] for a, b in zip(begins, [*begins[1:], len(data)], strict=True)]
    assert len(units) == count
    return units


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("kind", ["compressed", "ffmpeg", "foxglove"])
def test_video_in_messages_is_decoded(tmp_path, codec, kind):
    bag = FieldBag()
    for k, unit in enumerate(encoded(codec, 12, tmp_path)):
        data = np.frombuffer(unit, np.uint8)
        if kind == "compressed":
            bag.compressed("/camera/image_raw/compressed", unit, codec, k * STEP)
        elif kind == "ffmpeg":
            packet = bag.new(
                FFMPEG, header=bag.header(T0 + k * STEP, "cam"), width=WIDTH, height=HEIGHT, encoding=f"lib{codec}",
                pts=k, flags=int(k == 0), is_bigendian=False, data=data,
            )  # fmt: skip
            bag.add("/camera/image_raw/ffmpeg", k * STEP, packet)
        else:
            stamp = bag.time(T0 + k * STEP)
            video = bag.new(
                FOXGLOVE, timestamp=stamp, frame_id="cam", data=data, format={"hevc": "h265"}.get(codec, codec)
            )
            bag.add("/camera/video", k * STEP, video)
    bag.info("/camera/camera_info", 0)
    frames, _, said = read(bag.write(tmp_path / "bag"))
    assert stamps_s(frames) == [round(0.1 * k, 3) for k in range(12)]
    for k, frame in enumerate(frames):
        off = [np.abs(frame.image.astype(float) - picture(other)).mean() for other in range(12)]
        assert np.argmin(off) == k and off[k] < 8
    assert "left out" not in said


def test_video_from_the_middle_begins_with_its_first_key_picture(tmp_path):
    bag = FieldBag()
    for k, unit in enumerate(encoded("h264", 12, tmp_path)):
        if k >= 2:
            bag.compressed("/camera/image_raw/compressed", unit, "h264", k * STEP)
    bag.info("/camera/camera_info", 0)
    frames, _, said = read(bag.write(tmp_path / "bag"))
    assert stamps_s(frames) == [round(0.1 * k, 3) for k in range(4, 12)]
    assert "before the first key picture: left out (2 times)" in said


def test_video_that_cannot_be_decoded_is_refused_with_the_remedy(tmp_path):
    bag = FieldBag()
    for k in range(4):
        bag.compressed("/camera/image_raw/compressed", b"\0\0\0\1\x67" + bytes(range(60)), "h264", k * STEP)
    bag.info("/camera/camera_info", 0)
    with pytest.raises(Motion4DError, match=r"H\.264.*of 4 messages, of which 0 pictures.*republish ffmpeg raw"):
        read(bag.write(tmp_path / "bag"))


def test_a_void_label_of_255_is_nobody(tmp_path):
    bag = FieldBag()
    bag.camera(4)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[10:30, 10:30], labels[14:26, 14:26] = 255, 1
    for k in range(4):
        bag.image("/masks", labels, "mono8", k * STEP)
    frames, _, said = read(bag.write(tmp_path / "bag"), masks="/masks")
    assert np.array_equal(frames[0].masks, np.where(labels == 255, -1, labels.astype(int)))
    assert "255 stands beside small ids" in said
