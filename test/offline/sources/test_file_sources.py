"""Videos and folders of images in, with depth, masks and poses from files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from motion4d_ros.offline.sources import SourceOptions, open_source
from motion4d_ros.offline.sources.files.file_names import natural_key
from motion4d_ros.offline.sources.files.side_files import read_depth_values, read_labels
from motion4d_ros.offline.sources.quiet import quiet_opencv
from motion4d_ros.types import Motion4DError


def frames_of(path, **options):
    source = open_source(Path(path), SourceOptions(**options))
    try:
        return list(source), source
    finally:
        source.close()


def test_natural_order():
    names = ["a10.png", "a9.png", "a1.png", "b0.png", "a01.png", "7.png", "a2-10.png", "a2-9.png"]
    ordered = [path.name for path in sorted(map(Path, names), key=natural_key)]
    assert ordered == ["7.png", "a01.png", "a1.png", "a2-9.png", "a2-10.png", "a9.png", "a10.png", "b0.png"]


def test_folder_in_natural_order_with_everything(make_images, tmp_path):
    images = make_images(12)  # img10 comes after img9
    frames, source = frames_of(images, fps=20.0, masks=str(tmp_path / "masks"), depth=str(tmp_path / "depth"))
    assert [f.stamp_ns for f in frames] == [50_000_000 * k for k in range(12)]
    for index, frame in enumerate(frames):
        assert tuple(frame.image[10, 6 + index]) == (220, 40, 30)
        assert (frame.masks == 3).sum() == 144 and frame.masks[10, 6 + index] == 3
        assert np.allclose(frame.depth_m, 1.5)
    assert "camera poses" in source.report.missing and "depth" not in source.report.missing


def test_defaults_are_said(make_images):
    frames, source = frames_of(make_images(2))
    assert frames[0].camera.fx == pytest.approx(1.2 * 48)
    assert frames[0].camera.cx == 23.5
    text = " ".join(source.report.sentences())
    assert "no --fps" in text and "no --intrinsics" in text


def test_intrinsics(make_images):
    frames, source = frames_of(make_images(1), intrinsics=(50.0, 51.0, 20.0, 15.0), fps=1.0)
    assert frames[0].camera.fy == 51.0 and not source.report.warnings


@pytest.mark.parametrize("wrong", [(50.0, 51.0, 9000.0, 15.0), (1e-9, 1e-9, 20.0, 15.0), (1e9, 51.0, 20.0, 15.0)])
def test_absurd_intrinsics_are_one_line(make_images, wrong):
    with pytest.raises(Motion4DError, match=r"--intrinsics: [cf]x="):
        frames_of(make_images(1), intrinsics=wrong)


def test_intrinsics_of_another_size_are_suspected(make_images):
    frames, source = frames_of(make_images(1), intrinsics=(500.0, 500.0, 320.0, 240.0), fps=1.0)
    assert len(frames) == 1 and "are they of another size?" in source.report.sentences()[0]


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_a_jpeg_that_breaks_off_is_left_out_and_said(tmp_path, share):
    """OpenCV reads it without a word, and fills what is missing with grey."""
    rng = np.random.default_rng(0)
    content = cv2.imencode(".jpg", rng.integers(0, 256, (48, 64, 3), np.uint8))[1].tobytes()
    for name, data in (("0", content), ("1", content[: int(share * len(content))]), ("2", content[:-2])):
        (tmp_path / f"{name}.jpg").write_bytes(data)
    frames, source = frames_of(tmp_path, fps=1.0)
    assert len(frames) == 2, "whole but for its end mark, as some cameras write them: that one is read"
    assert "1.jpg cannot be read as an image: left out (the JPEG breaks off)" in source.report.sentences()


def test_unequal_sizes_are_one_line(make_images):
    with pytest.raises(Motion4DError, match=r"img2\.png: 24x16 px, but img0\.png is 48x32"):
        frames_of(make_images(3, sizes=[(48, 32), (48, 32), (24, 16)]))


def test_unreadable_image_is_left_out_and_said(make_images):
    images = make_images(3)
    (images / "img1.png").write_bytes(b"no image")
    frames, source = frames_of(images, fps=10.0)
    assert [f.stamp_ns for f in frames] == [0, 200_000_000]
    assert any("img1.png cannot be read" in text for text in source.report.sentences())


def test_no_image_can_be_read(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.jpg").write_bytes(b"")
    with pytest.raises(Motion4DError, match="none of the 3 images"):
        frames_of(tmp_path)


def test_empty_folder(tmp_path):
    with pytest.raises(Motion4DError, match="no images found"):
        frames_of(tmp_path)


def test_missing_input(tmp_path):
    with pytest.raises(Motion4DError, match="no such file"):
        frames_of(tmp_path / "nowhere")


def test_unknown_kind(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(Motion4DError, match="neither a rosbag2"):
        frames_of(tmp_path / "notes.txt")


def test_several_kinds_in_one_folder(tmp_path):
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"left-{k}.png"), np.zeros((16, 16, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"right-{k}.png"), np.full((16, 16, 3), 200, np.uint8))
    with pytest.raises(Motion4DError, match=r"--image-glob: left-\*\.png, right-\*\.png"):
        frames_of(tmp_path)
    frames, _ = frames_of(tmp_path, image_glob="right-*.png")
    assert len(frames) == 3 and frames[0].image.min() == 200


def test_seven_scenes_layout(shared_data):
    folder = str(shared_data / "seven_scenes")
    frames, source = frames_of(folder, depth=folder, poses=folder, fps=6.0)
    assert len(frames) == 50 and all(f.T_map_cam is not None and f.depth_m is not None for f in frames)
    assert frames[0].depth_m.max() < 60.0  # 65535 means none
    assert "frame-000000.color.jpg" in source.report.used["image"]


def test_fewer_masks_than_images_are_matched_by_number(make_images, tmp_path):
    images = make_images(6)
    for k in (0, 2, 3, 5):
        (tmp_path / "masks" / f"m{k}.png").unlink()
    frames, source = frames_of(images, masks=str(tmp_path / "masks"))
    assert [f.masks is None for f in frames] == [True, False, True, True, False, True]
    assert any("2 by number: m1 belongs to image 1" in text for text in source.report.sentences())


def test_masks_of_another_shape(make_images, tmp_path):
    images = make_images(2)
    cv2.imwrite(str(tmp_path / "masks" / "m1.png"), np.zeros((10, 40), np.uint8))
    with pytest.raises(Motion4DError, match="masks: 40x10 px does not show the view of 48x32"):
        frames_of(images, masks=str(tmp_path / "masks"))


def test_palette_masks_are_indices(tmp_path):
    labels = np.array([[0, 1], [2, 5]], np.uint8)
    picture = Image.fromarray(labels, "P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [7] * 759)
    picture.save(tmp_path / "p.png")
    assert np.array_equal(read_labels(tmp_path / "p.png"), labels)


def test_colour_mask_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "c.png"), np.random.default_rng(0).integers(0, 255, (4, 4, 3)).astype(np.uint8))
    with pytest.raises(Motion4DError, match="a colour image; masks hold object ids"):
        read_labels(tmp_path / "c.png")


def test_depth_files(tmp_path):
    cv2.imwrite(str(tmp_path / "d.png"), np.array([[0, 1500], [65535, 20]], np.uint16))
    assert np.array_equal(read_depth_values(tmp_path / "d.png"), [[0, 1500], [65535, 20]])
    np.save(tmp_path / "d.npy", np.array([[np.nan, 1.5], [np.inf, -2.0]]))
    assert np.array_equal(read_depth_values(tmp_path / "d.npy")[:, 1], np.float32([1.5, -2.0]))
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(Motion4DError, match=r"o\.npy"):
        read_depth_values(tmp_path / "o.npy")
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((4, 4), np.uint8))
    with pytest.raises(Motion4DError, match="8-bit picture; depth is a 16-bit PNG in mm"):
        read_depth_values(tmp_path / "b.png")


def write_tum(path, count, rate, start=1.7e9):
    lines = [f"{start + k / rate:.9f} {0.1 * k:.3f} 0 0 0 0 0 1" for k in range(count)]
    path.write_text("# a comment\n" + "\n".join(lines) + "\n")
    return str(path)


def test_one_pose_per_frame_gives_stamps_too(make_images, tmp_path):
    frames, _ = frames_of(make_images(5), poses=write_tum(tmp_path / "p.tum", 5, 4.0))
    assert frames[1].stamp_ns == 1_700_000_000_250_000_000
    assert frames[3].T_map_cam[0, 3] == pytest.approx(0.3)


def test_other_number_of_poses_is_matched_by_time(make_images, tmp_path):
    frames, source = frames_of(make_images(5), poses=write_tum(tmp_path / "p.tum", 40, 100.0), fps=20.0)
    assert frames[2].T_map_cam[0, 3] == pytest.approx(1.0)
    assert any("40 poses for 5 frames" in text for text in source.report.sentences())


@pytest.mark.parametrize("line", ["1 2 3", "1.0 a 0 0 0 0 0 1", "1.0 1 0 0 0 0 0 0", "x 0 0 0 0 0 0 1"])
def test_bad_poses_name_the_line(make_images, tmp_path, line):
    (tmp_path / "p.tum").write_text(f"0.0 0 0 0 0 0 0 1\n{line}\n")
    with pytest.raises(Motion4DError, match=r"p\.tum, line 2"):
        frames_of(make_images(3), poses=str(tmp_path / "p.tum"))


def write_video(path, frames=12, rate=25.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (96, 64))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((64, 96, 3), 20 * index % 256, np.uint8))
    writer.release()
    return path


def test_video(tmp_path):
    frames, source = frames_of(write_video(tmp_path / "v.mp4"))
    assert len(frames) == source.count == 12
    assert frames[1].stamp_ns == 40_000_000
    assert np.allclose([f.image.mean() for f in frames], 20 * np.arange(12), atol=6)


def test_video_rate_and_side_files(tmp_path, make_images):
    make_images(12)
    frames, _ = frames_of(write_video(tmp_path / "v.mp4"), fps=10.0, depth=str(tmp_path / "depth"))
    assert frames[1].stamp_ns == 100_000_000
    assert frames[0].depth_m.shape == (64, 96)


def test_truncated_video(tmp_path):
    path = write_video(tmp_path / "v.avi", frames=30)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    try:
        frames, _ = frames_of(path)
    except Motion4DError as error:
        assert "v.avi" in str(error)
    else:
        assert 0 < len(frames) < 30


def test_rubbish_video(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"nothing\0")
    with pytest.raises(Motion4DError, match="cannot be opened as a video"):
        frames_of(tmp_path / "v.mp4")


def test_topics_make_no_sense_for_videos(tmp_path):
    with pytest.raises(Motion4DError, match="which takes no --odometry: it has no topics; use --poses FILE"):
        frames_of(write_video(tmp_path / "v.mp4"), odometry="/odom")


@pytest.mark.parametrize(("option", "value"), [("fps", 0.0), ("fps", -1.0), ("intrinsics", (0.0, 1.0, 0.0, 0.0))])
def test_impossible_options(option, value):
    with pytest.raises(Motion4DError, match=f"--{option}"):
        SourceOptions(**{option: value})


def test_older_opencv_is_silenced_too(monkeypatch):
    """Up to 4.10, as Debian 12 and Ubuntu 24.04 have it, the functions stand at the top of the module."""
    levels = [3]
    monkeypatch.delattr(cv2.utils, "logging", raising=False)
    monkeypatch.setattr(cv2, "getLogLevel", lambda: levels[-1], raising=False)
    monkeypatch.setattr(cv2, "setLogLevel", levels.append, raising=False)
    with quiet_opencv():
        assert levels[-1] == 0
    assert levels == [3, 0, 3]
