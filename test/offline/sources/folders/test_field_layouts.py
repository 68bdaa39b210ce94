"""Folders as data sets and cameras leave them: layouts, pictures of every depth, ways up, labels, units."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation, Slerp

START_S = 1305031102.175304


def texture(height, width, seed):
    """(H, W, 3) that flow can follow."""
    total = np.zeros((height, width, 3), np.float32)
    for cell in (48, 24, 12):
        coarse = (
            np.random.default_rng(seed + cell).random((height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        )
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(80 * total, 0, 255).astype(np.uint8)


WALL, BOX = texture(480, 960, 0), texture(240, 240, 1)


def scene(k, width=320, height=240):
    """Image (BGR), depth (m) and pose of a camera of f = 320 px that goes 6 cm a frame to the right: wall and box."""
    x = 0.06 * k
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    dx, dy = (u - (width - 1) / 2) / 320.0, (v - (height - 1) / 2) / 320.0
    depth = np.full((height, width), 3.0, np.float32)
    box = (np.abs(x + 1.5 * dx - 0.3) < 0.4) & (np.abs(1.5 * dy) < 0.3)
    wall = cv2.remap(WALL, (200 + 120 * (x + 3 * dx)).astype(np.float32), (240 + 120 * 3 * dy).astype(np.float32), 1)
    near = cv2.remap(BOX, (50 + 200 * (x + 1.5 * dx)).astype(np.float32), (120 + 200 * 1.5 * dy).astype(np.float32), 1)
    depth[box] = 1.5
    T = np.eye(4)
    T[0, 3] = x
    return np.where(box[..., None], near, wall), depth, T


def tum_line(stamp, T, *, w_first=False):
    q = Rotation.from_matrix(T[:3, :3]).as_quat()
    q = np.roll(q, 1) if w_first else q
    return f"{stamp:.4f} " + " ".join(f"{value:.6f}" for value in (*T[:3, 3], *q))


@pytest.fixture
def folder(tmp_path):
    """Writes `count` frames of `scene` in the layout of TUM's data sets; the folder."""

    def make(count=10, *, units=5000.0, lists=("rgb", "depth", "groundtruth"), turned=None, w_first=False, dtype="u2"):
        listed = {"rgb": ["# timestamp filename"], "depth": ["# timestamp filename"], "groundtruth": ["# tx ty tz …"]}
        for name in ("rgb", "depth"):
            (tmp_path / name).mkdir()
        for k in range(count):
            image, depth, T = scene(k)
            T = T if turned is None else turned(T)
            stamp = START_S + 0.1 * k
            cv2.imwrite(str(tmp_path / f"rgb/{stamp:.6f}.png"), image)
            listed["rgb"].append(f"{stamp:.6f} rgb/{stamp:.6f}.png")
            listed["groundtruth"].append(tum_line(stamp, T, w_first=w_first))
            if k != 3:
                values = (depth * units).astype(dtype)
                cv2.imwrite(str(tmp_path / f"depth/{stamp + 0.012:.6f}.png"), values)
                listed["depth"].append(f"{stamp + 0.012:.6f} depth/{stamp + 0.012:.6f}.png")
        for name in lists:
            (tmp_path / f"{name}.txt").write_text("\n".join(listed[name]) + "\n")
        return tmp_path

    return make


def notes(report):
    return " | ".join(report.sentences())


# -- layouts ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tum_folder(shared_data, tmp_path):
    """Real recordings of a Kinect, 7-Scenes, brought into the layout of TUM's data sets; the folder."""
    source, count = shared_data / "seven_scenes", 16
    lists = {"rgb": ["# color images"], "depth": ["# depth maps"], "groundtruth": ["# timestamp tx ty tz qx qy qz qw"]}
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    times = START_S + np.arange(count) / 6.0
    poses = [np.loadtxt(source / f"frame-{5 * k:06d}.pose.txt") for k in range(count)]
    for k, time in enumerate(times):
        cv2.imwrite(str(tmp_path / f"rgb/{time:.6f}.png"), cv2.imread(str(source / f"frame-{5 * k:06d}.color.jpg")))
        lists["rgb"].append(f"{time:.6f} rgb/{time:.6f}.png")
        if k in (3, 7):  # dropped by the depth camera
            continue
        depth = cv2.imread(str(source / f"frame-{5 * k:06d}.depth.png"), cv2.IMREAD_UNCHANGED).astype(int)
        values = np.where((depth == 65535) | (5 * depth > 65534), 0, 5 * depth).astype(np.uint16)
        cv2.imwrite(str(tmp_path / f"depth/{time - 0.011:.6f}.png"), values)
        lists["depth"].append(f"{time - 0.011:.6f} depth/{time - 0.011:.6f}.png")
    between = Slerp(times, Rotation.from_matrix(np.stack([T[:3, :3] for T in poses])))
    for time in np.arange(times[0], times[-1] + 0.01, 0.01).clip(None, times[-1]):
        T = np.eye(4)
        T[:3, :3] = between(time).as_matrix()
        T[:3, 3] = [np.interp(time, times, [pose[axis, 3] for pose in poses]) for axis in range(3)]
        lists["groundtruth"].append(tum_line(time, T))
    for name, lines in lists.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_tum_folder_with_nothing_else_given(tum_folder, shared_data, read):
    frames, report = read(["analyze", tum_folder])
    assert len(frames) == 16 and frames[0].stamp_ns == 1305031102_175304000
    assert report.found == {"depth", "poses"}
    assert [k for k, frame in enumerate(frames) if frame.depth_m is None] == [3, 7]
    for k in (0, 5, 15):
        name = str(shared_data / "seven_scenes" / f"frame-{5 * k:06d}")
        millimetres = cv2.imread(f"{name}.depth.png", cv2.IMREAD_UNCHANGED)
        true = np.where((millimetres == 65535) | (millimetres > 13106), 0, millimetres / 1000.0)
        assert np.allclose(frames[k].depth_m, true, atol=1e-3)
        assert np.allclose(frames[k].T_map_cam, np.loadtxt(f"{name}.pose.txt"), atol=2e-3)
    assert frames[0].camera.fx == 525.0 and "default of TUM" in notes(report)
    assert "14 by stamp, -11 ms" in report.used["depth"] and "in 1/5000 m" in report.used["depth"]
    assert "interpolated to the stamps of 16 of 16" in report.used["camera poses"]


@pytest.mark.slow
def test_a_tum_folder_is_analysed_in_metres(tum_folder, tmp_path):
    import json

    from motion4d_ros.cli import main

    words = ["analyze", str(tum_folder), "--preset", "fast", "--limit", "8", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["scale"] == "metric"
    given = [line.split() for line in (tum_folder / "groundtruth.txt").read_text().splitlines()[1:]]
    used = [line.split() for line in (tmp_path / "out" / "trajectory.tum").read_text().splitlines()[1:]]
    assert np.allclose([float(v) for v in used[0][1:4]], [float(v) for v in given[0][1:4]], atol=1e-3)


def test_a_7_scenes_folder_with_nothing_else_given(shared_data, read):
    folder = shared_data / "seven_scenes"
    frames, report = read(["analyze", folder, "--fps", "6"])
    assert len(frames) == 50 and report.found == {"depth", "poses"}
    assert frames[0].camera.fx == 585.0 and "camera-intrinsics.txt" in report.used["camera"]
    assert np.allclose(frames[7].T_map_cam, np.loadtxt(folder / "frame-000035.pose.txt"), atol=1e-3)
    assert 0.5 < np.median(frames[7].depth_m[frames[7].depth_m > 0]) < 5.0
    frames, report = read(["analyze", folder, "--depth", "none", "--poses", "none", "--fps", "6"])
    assert frames[0].depth_m is None and frames[0].T_map_cam is None and not report.found


def test_calibrations_beside_the_images(folder, read, tmp_path):
    root = folder(4)
    (root / "calibration.txt").write_text("321.5 322.5 160.5 119.25\n")  # as ETH3D writes it
    frames, report = read(["analyze", root])
    assert (frames[0].camera.fx, frames[0].camera.cy) == (321.5, 119.25) and "calibration.txt" in notes(report)
    frames, report = read(["analyze", root / "rgb"])
    assert frames[0].camera.fx == 321.5 and frames[0].depth_m is None
    frames, report = read(["analyze", root, "--intrinsics", "320,320,159.5,119.5"])
    assert frames[0].camera.fx == 320.0 and "calibration.txt" not in notes(report)


def test_what_a_layout_brings_but_cannot_be_used_is_no_reason_to_give_up(folder, read):
    root = folder(5)
    for name in ("depth", "groundtruth"):
        text = (root / f"{name}.txt").read_text()
        (root / f"{name}.txt").write_text(text.replace("\n1305031102", "\n1305039102"))
    frames, report = read(["analyze", root, *GIVEN])
    assert len(frames) == 5 and not report.found and frames[0].depth_m is None and frames[0].T_map_cam is None
    assert "depth beside the images was not used" in notes(report) and "poses beside the images" in notes(report)


def test_images_and_depth_side_by_side(folder, read):
    frames, report = read(["analyze", folder(5, units=1000.0, lists=()), "--intrinsics", "320,320,159.5,119.5"])
    assert report.found == {"depth"} and [f.depth_m is None for f in frames] == [k == 3 for k in range(5)]
    assert frames[0].depth_m.max() == pytest.approx(3.0)


# -- units ------------------------------------------------------------------------------------------------------------

GIVEN = ("--intrinsics", "320,320,159.5,119.5")


@pytest.mark.parametrize(("units", "dtype"), [(1000.0, "u2"), (5000.0, "u2"), (256.0, "u2")])
def test_poses_tell_the_unit_of_depth(folder, read, units, dtype):
    root = folder(units=units, lists=("groundtruth",))
    words = ["analyze", root / "rgb", "--depth", root / "depth", "--poses", root / "groundtruth.txt", *GIVEN]
    frames, report = read(words)
    assert frames[0].depth_m.max() == pytest.approx(3.0, rel=0.01)
    assert ("--depth-scale" in notes(report)) == (units != 1000.0)


@pytest.mark.parametrize("units", [1000.0, 256.0])
def test_a_unit_that_nothing_confirms_is_said(tmp_path, read, units):
    """Four metres that count 256 each are as plausible as one metre in mm."""
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    for k in range(3):
        image, depth, _ = scene(k)
        cv2.imwrite(str(tmp_path / f"rgb/{k:04d}.png"), image)
        cv2.imwrite(str(tmp_path / f"depth/{k:04d}.png"), (depth * units).astype(np.uint16))
    words = ["analyze", tmp_path / "rgb", "--depth", tmp_path / "depth", "--fps", "10", *GIVEN]
    assert f"depth is taken for mm, {3.0 * units / 1000:.3g} m in the middle of all" in notes(read(words)[1])
    frames, report = read([*words, "--depth-scale", f"{units:g}"])
    assert frames[0].depth_m.max() == pytest.approx(3.0) and not report.warnings


def test_a_layout_that_lies_about_its_unit_is_found_out(folder, read):
    frames, report = read(["analyze", folder(units=1000.0), *GIVEN])
    assert frames[0].depth_m.max() == pytest.approx(3.0) and "0.21 times as far" in notes(report)


def test_poses_without_scale_are_refused(folder, refused, read):
    def shrunk(T):
        return np.block([[T[:3, :3], 0.37 * T[:3, 3:]], [T[3:]]])

    root = folder(units=1000.0, lists=("groundtruth",), turned=shrunk)
    words = ["analyze", root / "rgb", "--depth", root / "depth", "--poses", root / "groundtruth.txt", *GIVEN]
    assert "2.8 times as far" in (line := refused(words)) and "--poses none" in line
    assert "are --depth-scale and --poses right?" in notes(read([*words, "--depth-scale", "1000"])[1])


@pytest.mark.parametrize(
    ("change", "w_first", "expected"),
    [(np.linalg.inv, False, "map-to-camera: give their inverse"), (None, True, "written w first")],
)
def test_poses_of_another_convention_are_refused(folder, refused, change, w_first, expected):
    def turned(T):
        out = T.copy()
        out[:3, :3] = Rotation.from_euler("zx", [30, 20], True).as_matrix()
        out[:3, 3] = out[:3, :3] @ T[:3, 3] + [0.3, 0.2, -0.4]
        return out if change is None else change(out)

    root = folder(units=1000.0, lists=("groundtruth",), turned=turned, w_first=w_first)
    words = ["analyze", root / "rgb", "--depth", root / "depth", "--poses", root / "groundtruth.txt", *GIVEN]
    assert expected in refused(words)


def test_depth_files_of_every_kind(tmp_path, make_images, read, refused):
    images = make_images(3)
    words = ["analyze", images, "--fps", "10", "--depth", tmp_path / "d"]
    for name, values in {
        "mm.npy": np.full((32, 48), 1500.0, np.float32),
        "int.npy": np.full((32, 48), 1500, np.int32),
        "m.npy": np.full((32, 48), 1.5),
        "half.npy": np.full((1, 32, 48), 1.5, np.float16),
    }.items():
        (tmp_path / "d").mkdir()
        for k in range(3):
            np.save(tmp_path / "d" / f"d{k}.npy", values)
        frames, report = read(words)
        assert frames[1].depth_m.max() == pytest.approx(1.5), name
        assert ("read as mm" in notes(report)) == (name == "mm.npy")
        (tmp_path / "d" / "d1.npy").write_bytes(b"broken")
        frames, report = read(words)
        assert [f.depth_m is None for f in frames] == [False, True, False] and "d1.npy" in notes(report)
        for file in (tmp_path / "d").iterdir():
            file.unlink()
        (tmp_path / "d").rmdir()
    (tmp_path / "d").mkdir()
    for k in range(3):
        cv2.imwrite(str(tmp_path / "d" / f"d{k}.png"), np.full((32, 48), 90, np.uint8))
    assert "an 8-bit picture; depth is a 16-bit PNG" in refused(words)


# -- pictures ---------------------------------------------------------------------------------------------------------


def written(folder, make, count=3, suffix="png"):
    folder.mkdir()
    for k in range(count):
        Image.fromarray(make(k)).save(folder / f"{k:03d}.{suffix}")
    return ["analyze", folder, "--fps", "10"]


def test_transparency_and_16_bit_colour(tmp_path, read):
    rgb = texture(32, 48, 3)
    words = written(tmp_path / "a", lambda k: np.dstack([rgb, np.full((32, 48), 40 * k, np.uint8)]))
    assert all(np.array_equal(frame.image, rgb) for frame in read(words)[0])
    (tmp_path / "b").mkdir()
    for k in range(3):
        cv2.imwrite(str(tmp_path / "b" / f"{k}.png"), rgb[..., ::-1].astype(np.uint16) * 257)
    frames, _ = read(["analyze", tmp_path / "b", "--fps", "10"])
    assert np.abs(frames[0].image.astype(int) - rgb).max() <= 1


def test_floating_point_pictures_are_stretched_alike(tmp_path, read):
    grey = texture(32, 48, 3)[..., 0].astype(np.float32)
    (tmp_path / "t").mkdir()
    for k in range(4):
        cv2.imwrite(str(tmp_path / "t" / f"{k}.tiff"), 20.0 + grey / 50 + k)  # degrees: the room warms up
    frames, _ = read(["analyze", tmp_path / "t", "--fps", "10"])
    means = np.array([frame.image.mean() for frame in frames])
    assert (np.diff(means) > 5).all() and frames[0].image.std() > 20


EXIF = {6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE, 3: cv2.ROTATE_180}


@pytest.mark.parametrize("orientation", EXIF)
def test_photos_are_turned_upright_with_their_masks(tmp_path, read, orientation):
    stored = cv2.resize(texture(64, 96, 5), (96, 64))
    tag = Image.Exif()
    tag[0x0112] = orientation
    for name in ("rgb", "masks"):
        (tmp_path / name).mkdir()
    labels = np.zeros((64, 96), np.uint8)
    labels[5:20, 10:30] = 2
    for k in range(2):
        Image.fromarray(stored).save(tmp_path / "rgb" / f"{k}.jpg", exif=tag, quality=98)
        Image.fromarray(labels).save(tmp_path / "masks" / f"{k}.png")
    words = ["analyze", tmp_path / "rgb", "--fps", "10", "--masks", tmp_path / "masks"]
    frames, report = read(words)
    upright = cv2.rotate(stored, EXIF[orientation])
    assert frames[0].image.shape == upright.shape and np.abs(frames[0].image.astype(int) - upright).mean() < 6
    if orientation != 3:  # half a turn leaves the shape: nobody knows whether the masks were turned
        assert np.array_equal(frames[0].masks, cv2.rotate(labels, EXIF[orientation]))
    assert "EXIF" in notes(report)
    if orientation != 3:  # the principal point is that of the picture as stored
        frames, report = read([*words, "--intrinsics", "100,100,47.5,31.5"])
        assert frames[0].image.shape == stored.shape and "left aside" in notes(report)


def test_numbers_that_are_missing_are_gaps_and_broken_files_keep_theirs(tmp_path, read):
    images, masks = tmp_path / "i", tmp_path / "m"
    images.mkdir(), masks.mkdir()
    for k in (1, 2, 3, 6, 7):
        cv2.imwrite(str(images / f"{k:04d}.png"), texture(32, 48, k))
    for k in range(1, 8):
        cv2.imwrite(str(masks / f"{k:04d}.png"), np.full((32, 48), k, np.uint8))
    (images / "0003.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    frames, report = read(["analyze", images, "--fps", "10", "--masks", masks])
    assert [f.stamp_ns // 10**8 for f in frames] == [0, 1, 5, 6]
    assert [int(f.masks.max()) for f in frames] == [1, 2, 6, 7]
    assert "2 numbers are missing" in notes(report) and "git lfs pull" in notes(report)


def test_the_reason_is_told_where_no_image_can_be_read(tmp_path, refused):
    (tmp_path / "i").mkdir()
    for k in range(3):
        (tmp_path / "i" / f"{k}.jpg").write_bytes(b"")
    assert "none of the 3 images can be read: an empty file" in refused(["analyze", tmp_path / "i"])


def test_folders_that_are_none_of_images(tmp_path, refused):
    (tmp_path / "a" / "cam0").mkdir(parents=True)
    assert "it holds the folders cam0: give one of them" in refused(["analyze", tmp_path / "a"])
    (tmp_path / "b").mkdir()
    assert "the folder is empty" in refused(["analyze", tmp_path / "b"])
    (tmp_path / "b" / "x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert "a HEIC picture: convert it to JPEG" in refused(["analyze", tmp_path / "b"])
    cv2.imwrite(str(tmp_path / "one.png"), texture(32, 48, 0))
    assert "one image; give the folder" in refused(["analyze", tmp_path / "one.png"])
    (tmp_path / "one.txt").write_text("hello\n")
    assert "a text file is neither" in refused(["analyze", tmp_path / "one.txt"])


# -- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "rim", "expected"),
    [
        ((255,), False, {0, 255}),  # black and white: an object
        ((1, 2, 255), False, {-1, 0, 1, 2}),
        ((85, 170, 255), False, {0, 85, 170, 255}),  # ids spread over 8 bits for the eye
        ((128, 255), False, {0, 128, 255}),
        ((200, 255), True, {-1, 0, 200}),  # large ids, but 255 is a rim
        ((254, 255, 300), False, {0, 254, 255, 300}),
    ],
)
def test_what_255_means(tmp_path, make_images, read, ids, rim, expected):
    images = make_images(3)
    labels = np.zeros((32, 48), np.uint16)
    for k, value in enumerate(ids):
        labels[4:24, 2 + 15 * k : 14 + 15 * k] = value
    if rim:
        labels[labels == 255] = 0
        labels[4:24, 14:16] = 255
    (tmp_path / "l").mkdir()
    for k in range(3):
        cv2.imwrite(str(tmp_path / "l" / f"{k}.png"), labels if max(ids) > 255 else labels.astype(np.uint8))
    frames, report = read(["analyze", images, "--fps", "10", "--masks", tmp_path / "l"])
    assert set(np.unique(frames[1].masks)) == expected and ("255" in notes(report)) == (-1 in expected)


def test_masks_as_jpeg(tmp_path, make_images, read, refused):
    images = make_images(2)
    black = np.zeros((32, 48), np.uint8)
    black[8:24, 8:24] = 255
    for name, labels in (("two", black), ("ids", black // 64)):
        (tmp_path / name).mkdir()
        for k in range(2):
            Image.fromarray(labels + (9 * (labels > 0) * (name == "ids") * 5).astype(np.uint8)).save(
                tmp_path / name / f"{k}.jpg", quality=60
            )
    frames, _ = read(["analyze", images, "--fps", "10", "--masks", tmp_path / "two"])
    assert np.array_equal(frames[0].masks, black)
    assert "write masks as PNG" in refused(["analyze", images, "--fps", "10", "--masks", tmp_path / "ids"])
