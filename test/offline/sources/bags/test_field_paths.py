"""What lies where: results and what they are made from, links, cut-out masks, depth of another time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from motion4d_ros.imagery.conversions import Rejection
from motion4d_ros.offline.sources import SourceOptions, open_source
from motion4d_ros.types import Motion4DError

from .field_bags import HEIGHT, STEP, WIDTH, FieldBag


def notes(report):
    return " | ".join(report.sentences())


# -- results never take the place of what they are made from ----------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["images", "--out", "images", "--overwrite"], "is the input itself"),
        (["images", "--out", "./images/", "--overwrite"], "is the input itself"),
        (["images", "--masks", "masks", "--out", ".", "--overwrite"], "would replace its masks, where --masks"),
        (["images", "--depth", "scene/depth", "--out", ".", "--overwrite"], "would replace its scene"),
        (["link", "--out", "images", "--overwrite"], "is the input itself"),
    ],
)
def test_inputs_are_not_replaced(make_images, tmp_path, monkeypatch, refused, words, reason):
    make_images(4)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scene").mkdir()
    (tmp_path / "depth").rename(tmp_path / "scene" / "depth")
    (tmp_path / "link").symlink_to("images")
    before = sorted(tmp_path.rglob("*"))
    assert reason in refused(["analyze", *words])
    assert sorted(tmp_path.rglob("*")) == before


def test_results_beside_and_inside_the_input_are_fine(make_images, tmp_path, read):
    images = make_images(4)
    for out in (images / "out", tmp_path / "other"):
        frames, _ = read(["analyze", images, "--masks", tmp_path / "masks", "--out", out, "--overwrite"])
        assert len(frames) == 4


# -- options and what is found ----------------------------------------------------------------------------------------


def test_a_glob_for_depth_needs_depth(make_images, refused):
    assert "--depth DIR" in refused(["analyze", make_images(4), "--depth-glob", "*.png"])


def test_masks_none_looks_for_what_moves(make_images, read, tmp_path):
    from motion4d_ros.config import Config
    from motion4d_ros.offline.analyze import effective_config
    from motion4d_ros.offline.carriers import AnalyzeOptions

    images = make_images(4)
    frames, report = read(["analyze", images, "--masks", "none"])
    assert frames[0].masks is None and "masks" in report.missing
    options = AnalyzeOptions(images, tmp_path / "out", SourceOptions(masks="none"))
    assert effective_config(options).masks.source == Config().masks.source


def test_depth_that_was_found_but_not_used_is_not_called_used(make_images, tmp_path, read):
    make_images(5, name="rgb")
    for path in (tmp_path / "depth").iterdir():
        cv2.imwrite(str(path), np.full((32, 48), 90, np.uint8))
    masks = (tmp_path / "masks").rename(tmp_path.parent / f"{tmp_path.name}_masks")
    frames, report = read(["analyze", tmp_path, "--masks", masks, "--out", tmp_path / "rgb" / "out"])
    assert all(frame.depth_m is None and frame.masks is not None for frame in frames)
    assert "depth" not in report.used and report.missing.count("depth") == 1
    assert "an 8-bit picture; depth is a 16-bit PNG" in notes(report) and "times" not in notes(report)


def test_links_that_lead_nowhere_are_said(make_images, tmp_path, read, refused):
    images = make_images(5)
    (images / "img2.png").unlink()
    (images / "img2.png").symlink_to(".git/annex/objects/img2")
    frames, report = read(["analyze", images, "--fps", "10"])
    assert [round(frame.stamp_ns / 1e8) for frame in frames] == [0, 1, 3, 4]
    assert "img2.png cannot be read" in notes(report) and "a link to .git/annex" in notes(report)
    (tmp_path / "gone").symlink_to("nowhere")
    assert "link to nowhere, which leads nowhere" in refused(["analyze", tmp_path / "gone"])


def test_cut_out_masks(make_images, tmp_path, read, refused):
    """A transparent part is background, whatever colour it has kept."""
    images = make_images(4)
    square = np.zeros((32, 48), bool)
    square[8:20, 4:16] = True
    for path in (tmp_path / "masks").iterdir():
        cv2.imwrite(str(path), np.dstack([np.full((32, 48, 3), 255, np.uint8), np.where(square, 255, 0)]))
    frames, _ = read(["analyze", images, "--masks", tmp_path / "masks"])
    assert ((frames[1].masks > 0) == square).all()
    for path in (tmp_path / "masks").iterdir():
        cv2.imwrite(str(path), np.dstack([np.zeros((32, 48, 3), np.uint8), np.where(square, 255, 0)]))
    assert "transparency" in refused(["analyze", images, "--masks", tmp_path / "masks"])


# -- bags: depth and masks of another time ----------------------------------------------------------------------------


def bag_with_depth(offset_ns, topic="/camera/depth", count=10, every=1):
    bag = FieldBag()
    bag.camera(count)
    for k in range(0, count, every):
        bag.image(topic, np.full((HEIGHT, WIDTH), 2000, np.uint16), "16UC1", k * STEP + offset_ns)
    return bag


def read_bag(path, **options):
    source = open_source(path, SourceOptions(**options))
    try:
        return list(source), source.report
    finally:
        source.close()


def test_depth_of_which_none_is_near_an_image(tmp_path):
    path = bag_with_depth(30_000_000).write(tmp_path / "bag")
    with pytest.raises((Motion4DError, Rejection), match="stamps lie 30 ms or more from those of /camera/image_raw"):
        read_bag(path, depth="/camera/depth")
    frames, report = read_bag(path)  # found, not asked for: left
    assert frames[0].depth_m is None and not report.found and "depth" not in report.used
    assert "depth on /camera/depth was not used" in notes(report)
    frames, report = read_bag(path, depth="/camera/depth", slop_s=0.05)
    assert all(frame.depth_m is not None for frame in frames[:-1])


@pytest.mark.parametrize(("offset_ns", "every"), [(15_000_000, 1), (0, 3), (2 * STEP, 1)])
def test_depth_that_is_near_some_images_is_used(tmp_path, offset_ns, every):
    frames, report = read_bag(bag_with_depth(offset_ns, every=every).write(tmp_path / "bag"))
    assert report.found == {"depth"} and sum(frame.depth_m is not None for frame in frames) >= 3


# -- times and calibration beside the images, as KITTI has them -------------------------------------------------------


def kitti(folder, make_images, lines):
    images = make_images(6, name="image_2")
    for k in range(6):
        (images / f"img{k}.png").rename(images / f"{k:06d}.png")
    (folder / "times.txt").write_text("\n".join(lines) + "\n")
    rows = [f"P{k}: 50 0 23 {-7.2 * k} 0 50 15 0 0 0 1 0" for k in range(4)]
    (folder / "calib.txt").write_text("\n".join(rows) + "\n")
    poses = [f"1 0 0 {0.1 * k} 0 1 0 0 0 0 1 0" for k in range(6)]
    (folder / "poses.txt").write_text("\n".join(poses) + "\n")
    return images


@pytest.mark.parametrize(
    ("lines", "start_s", "told"),
    [
        ([f"{0.1037 * k:e}" for k in range(6)], 0.0, "times.txt"),
        ([f"{1037e5 * k:.0f}" for k in range(6)], 0.0, "(ns)"),
        ([f"2011-09-26 13:02:{25.5 + 0.1037 * k:.9f}" for k in range(6)], 1317042145.5, "times.txt"),
        ([f"{0.1037 * k:e}" for k in range(40)], 0.0, "times.txt"),  # a part of the images
    ],
)
def test_times_beside_the_images(make_images, tmp_path, read, lines, start_s, told):
    images = kitti(tmp_path, make_images, lines)
    frames, report = read(["analyze", images, "--poses", tmp_path / "poses.txt"])
    stamps = np.array([frame.stamp_ns for frame in frames]) * 1e-9
    assert stamps == pytest.approx(start_s + 0.1037 * np.arange(6), abs=1e-5)
    assert frames[3].T_map_cam[0, 3] == pytest.approx(0.3)
    assert (frames[0].camera.fx, frames[0].camera.cx) == (50.0, 23.0)
    assert told in notes(report) + report.used["image"] and "no --fps" not in notes(report)


@pytest.mark.parametrize("lines", [["0", "1", "2"], ["no times at all"] * 6, ["5"] * 6])
def test_times_that_do_not_fit_are_left_and_said(make_images, tmp_path, read, lines):
    frames, report = read(["analyze", kitti(tmp_path, make_images, lines)])
    assert len(frames) == 6 and "times.txt beside the images was not used" in notes(report)
    assert "no --fps" in notes(report)


def test_fps_wins_over_times_beside_the_images(make_images, tmp_path, read):
    images = kitti(tmp_path, make_images, [f"{k}" for k in range(6)])
    frames, _ = read(["analyze", images, "--fps", "20"])
    assert frames[5].stamp_ns == pytest.approx(0.25e9)


def test_cameras_of_different_lenses_in_one_file(make_images, tmp_path, refused):
    images = make_images(3)
    (tmp_path / "c.txt").write_text("P0: 50 0 23 0 0 50 15 0 0 0 1 0\nP1: 60 0 23 0 0 60 15 0 0 0 1 0\n")
    assert "different lenses" in refused(["analyze", images, "--camera-info", tmp_path / "c.txt"])
