"""Videos by their content, with the stamps of their containers; and which options every kind of recording takes."""

from __future__ import annotations

import subprocess

import cv2
import imageio_ffmpeg
import numpy as np
import pytest


def ffmpeg(*words):
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y"]
    subprocess.run([*program, *map(str, words)], check=True)


@pytest.fixture
def encode(tmp_path):
    """Encodes 12 grey pictures, each brighter than the one before, at 10 a second; the file."""

    def make(name, *words, before=()):
        (tmp_path / "png").mkdir(exist_ok=True)
        for k in range(12):
            cv2.imwrite(str(tmp_path / f"png/{k:03d}.png"), np.full((64, 96, 3), 20 + 18 * k, np.uint8))
        words = words or ("-c:v", "libx264")
        picture = ("-pix_fmt", "yuv420p", "-crf", "10") if "libx264" in words else ()
        ffmpeg("-framerate", "10", "-i", tmp_path / "png/%03d.png", *before, *words, *picture, tmp_path / name)
        return tmp_path / name

    return make


def shown(frames):
    """Which of the pictures each frame is."""
    return [round((float(frame.image.mean()) - 20) / 18) for frame in frames]


def stamps_s(frames):
    return [round(frame.stamp_ns / 1e9, 3) for frame in frames]


def notes(report):
    return " | ".join(report.sentences())


TENTHS = [round(0.1 * k, 3) for k in range(12)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.ts", ("-c:v", "libx264")),
        ("a.flv", ("-c:v", "libx264")),
        ("a.mkv", ("-c:v", "libx264", "-bf", "3")),
        ("no_suffix", ("-c:v", "libx264", "-f", "mp4")),
        ("a.dat", ("-c:v", "libx264", "-f", "mpegts")),
        ("a.webm", ("-c:v", "libvpx", "-b:v", "1M")),
        ("a.gif", ("-f", "gif")),
    ],
)
def test_a_video_is_known_by_its_content(encode, read, name, words):
    frames, report = read(["analyze", encode(name, *words)])
    assert shown(frames) == list(range(12)) and stamps_s(frames) == TENTHS
    assert "rate" not in notes(report).replace("separate", "")


def test_a_bare_stream_has_no_times_and_that_is_said(encode, read):
    path = encode("a.h264", "-c:v", "libx264", "-f", "h264")
    frames, report = read(["analyze", path])
    assert len(frames) == 12 and "does not say when its frames were taken: 25" in notes(report)
    frames, report = read(["analyze", path, "--fps", "10"])
    assert stamps_s(frames) == TENTHS and "25 a second" not in notes(report)


def test_gaps_stay_gaps_and_masks_keep_their_frames(encode, read, tmp_path):
    drop = ("-vf", "select='not(between(n,4,6))'", "-fps_mode", "vfr")
    path = encode("gap.mp4", "-c:v", "libx264", before=drop)
    (tmp_path / "masks").mkdir()
    for k in range(9):
        cv2.imwrite(str(tmp_path / f"masks/{k:05d}.png"), np.full((64, 96), k + 1, np.uint8))
    frames, report = read(["analyze", path, "--masks", tmp_path / "masks"])
    assert stamps_s(frames) == TENTHS[:4] + TENTHS[7:] and "rate varies" in notes(report)
    assert [int(frame.masks.max()) for frame in frames] == list(range(1, 10))
    frames, report = read(["analyze", path, "--fps", "20"])
    assert stamps_s(frames) == [round(0.05 * k, 3) for k in range(9)] and "spaces them evenly" in notes(report)


def test_what_an_edit_list_cuts_off_is_not_counted(encode, read, tmp_path):
    encode("whole.mp4")
    ffmpeg("-ss", "0.35", "-i", tmp_path / "whole.mp4", "-c", "copy", tmp_path / "cut.mp4")
    frames, report = read(["analyze", tmp_path / "cut.mp4"])
    assert stamps_s(frames) == TENTHS[: len(frames)] and shown(frames)[-1] == 11 and len(frames) < 12
    assert "could be decoded" not in notes(report)


def test_a_phones_rotation_flag_is_obeyed_unless_the_calibration_is_of_the_sensor(encode, read, tmp_path):
    encode("flat.mp4")
    ffmpeg("-display_rotation", "90", "-i", tmp_path / "flat.mp4", "-c", "copy", tmp_path / "up.mp4")
    frames, report = read(["analyze", tmp_path / "up.mp4"])
    assert frames[0].image.shape == (96, 64, 3) and "turned as its flag says" in notes(report)
    frames, report = read(["analyze", tmp_path / "up.mp4", "--intrinsics", "90,90,47.5,31.5"])
    assert frames[0].image.shape == (64, 96, 3) and "left aside" in notes(report)
    frames, report = read(["analyze", tmp_path / "up.mp4", "--intrinsics", "90,90,31.5,47.5"])
    assert frames[0].image.shape == (96, 64, 3)


def test_pixels_that_are_not_square(encode, read):
    frames, report = read(["analyze", encode("sar.mp4", before=("-vf", "setsar=4/3"))])
    camera = frames[0].camera
    assert camera.fy / camera.fx == pytest.approx(4 / 3, rel=0.02) and "not square" in notes(report)


def test_what_is_no_video(tmp_path, refused):
    for name, content, reason in (
        ("e.mp4", b"", "the file is empty"),
        ("r.mp4", np.random.default_rng(0).bytes(9000), "cannot be opened as a video"),
        ("t.mp4", b"<html>not found</html>\n", "a text file"),
    ):
        (tmp_path / name).write_bytes(content)
        assert reason in refused(["analyze", tmp_path / name])


# -- every option, for every kind of recording ------------------------------------------------------------------------

OPTIONS = {  # words -> what (bag, video, folder) do with them: "" takes them, else a part of the refusal
    ("--image", "/camera/image_raw"): ("", "takes no --image", "takes no --image: it has no topics; --image-glob"),
    ("--image-glob", "*.png"): ("takes no --image-glob", "takes no --image-glob", ""),
    ("--camera-info", "/camera/camera_info"): ("", "no such file; for a video or folder", "no such file; for a video"),
    ("--camera-info", "{tmp}/camera.yaml"): (None, "", ""),
    ("--intrinsics", "50,50,23.5,15.5"): ("", "", ""),
    ("--depth", "/camera/depth"): ("", "no such folder", "no such folder"),
    ("--depth", "{tmp}/depth"): (None, "", ""),
    ("--depth-glob", "*.png"): ("takes no --depth-glob", "give --depth DIR with it", None),
    ("--masks", "/camera/mask"): ("", "no such folder", "no such folder"),
    ("--masks", "{tmp}/masks"): (None, "", ""),
    ("--masks-glob", "*.png"): ("takes no --masks-glob", "give --masks DIR with it", "give --masks DIR with it"),
    ("--odometry", "/odom"): ("", "use --poses FILE", "use --poses FILE"),
    ("--poses", "{tmp}/poses.tum"): ("takes no --poses: its poses come from --odometry", "", ""),
    ("--set", "pose.source=tf"): ("", "takes no --set pose.source=tf", "takes no --set pose.source=tf"),
    ("--fps", "10"): ("takes no --fps", "", ""),
    ("--limit", "3"): ("", "", ""),
}


@pytest.mark.parametrize("kind", ["bag", "video", "folder"])
def test_every_option_is_taken_or_refused(kind, tmp_path, make_bag, make_images, encode, read, refused):
    make_images(12)
    (tmp_path / "poses.tum").write_text("".join(f"{0.1 * k:.1f} 0 0 0 0 0 0 1\n" for k in range(12)))
    (tmp_path / "camera.yaml").write_text(
        "image_width: 48\nimage_height: 32\ndistortion_model: plumb_bob\n"
        "camera_matrix: {rows: 3, cols: 3, data: [50, 0, 23.5, 0, 50, 15.5, 0, 0, 1]}\n"
    )
    if kind == "bag":
        path = make_bag(topics=("image", "info", "depth", "masks", "odom", "tf"), frames=4)
    elif kind == "video":
        ffmpeg("-framerate", "10", "-i", tmp_path / "images/img%d.png", "-c:v", "libx264", "-pix_fmt", "yuv420p",
               tmp_path / "v.mp4")  # fmt: skip
        path = tmp_path / "v.mp4"
    else:
        path = tmp_path / "images"
    for words, expected in OPTIONS.items():
        reason = expected[("bag", "video", "folder").index(kind)]
        told = ["analyze", path, *(word.format(tmp=tmp_path) for word in words)]
        if reason == "":
            assert read(told)[0], words
        elif reason is not None:
            assert reason in refused(told), words


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--depth-scale", "5000"), "--depth-scale"),
        (("--camera-info", "{tmp}/c.yaml", "--intrinsics", "50,50,23.5,15.5"), "both say what camera it was"),
    ],
)
def test_options_that_make_no_sense_together(make_images, tmp_path, refused, words, reason):
    told = ["analyze", make_images(3), *(word.format(tmp=tmp_path) for word in words)]
    assert reason in refused(told)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 51 23.5 15.5\n", (50, 51, 23.5, 15.5)),
        ("100, 102, 47.5, 31.5, 0.1, 0.01, 0, 0\n", "9"),
        ("50 0 23.5\n0 51 15.5\n0 0 1\n", (50, 51, 23.5, 15.5)),
        ("%YAML:1.0\n---\nimage_width: 48\nimage_height: 32\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   cols: 3\n"
         "   dt: d\n   data: [50., 0., 23.5, 0., 51., 15.5, 0., 0., 1.]\n", (50, 51, 23.5, 15.5)),
        ("cam0:\n  camera_model: pinhole\n  intrinsics: [50, 51, 23.5, 15.5]\n  resolution: [48, 32]\n"
         "  distortion_model: radtan\n  distortion_coeffs: [0, 0, 0, 0]\n", (50, 51, 23.5, 15.5)),
        ("intrinsics: [100, 102, 47.5, 31.5]\nresolution: [96, 64]\n", (50, 51, 23.5, 15.5)),  # of twice the size
        ("%YAML:1.0\nCamera.type: PinHole\nCamera.fx: 50\nCamera.fy: 51\nCamera.cx: 23.5\nCamera.cy: 15.5\n",
         (50, 51, 23.5, 15.5)),
        ("hello: world\n", "no camera matrix found"),
        ("a: [1\n", "cannot be read as a calibration"),
        ("intrinsics: [50, 51, 23.5, 15.5]\nresolution: [32, 48]\n", "do they belong together"),
    ],
)  # fmt: skip
def test_calibration_files(make_images, tmp_path, read, refused, text, expected):
    (tmp_path / "c.yaml").write_text(text)
    words = ["analyze", make_images(2), "--fps", "10", "--camera-info", tmp_path / "c.yaml"]
    if expected == "9":  # distorted, and of another principal point than the image's middle
        assert "rectified" in read(words)[1].used["camera"]
    elif isinstance(expected, str):
        assert expected in refused(words)
    else:
        camera = read(words)[0][0].camera
        assert np.allclose((camera.fx, camera.fy, camera.cx, camera.cy), expected, atol=0.3)
