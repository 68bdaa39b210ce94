"""Trajectories: what their lines mean, and which pose belongs to which frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from motion4d_ros.offline.sources.camera.given_poses import GivenPoses
from motion4d_ros.offline.sources.camera.pose_files import read_trajectory, stamp_unit, stamps_ns
from motion4d_ros.offline.sources.files.file_names import Keys, read_keys
from motion4d_ros.offline.sources.interfaces import SourceOptions, SourceReport
from motion4d_ros.types import Motion4DError

EPOCH = 1_400_000_000


@pytest.fixture
def written(tmp_path):
    def write(text, name="poses.txt"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def lines(stamps, x=lambda k: 0.1 * k):
    return "".join(f"{stamp} {x(k):.6f} 0 0 0 0 0 1\n" for k, stamp in enumerate(stamps))


TURN = Rotation.from_euler("y", 40, True).as_quat()  # 0, 0.342, 0, 0.940


@pytest.mark.parametrize(
    "header",
    [
        "# timestamp tx ty tz qx qy qz qw\n",
        "# ground truth\n# file: 'a.bag'\n# timestamp tx ty tz qx qy qz qw\n",
        "timestamp,p_x,p_y,p_z,q_x,q_y,q_z,q_w\n",
        "",
    ],
)
def test_columns_of_tum(written, header):
    numbers = [100.5, 1, 2, 3, *TURN]
    separator = "," if "," in header else " "
    found = read_trajectory(written(header + separator.join(map(str, numbers)) + "\n"))
    assert np.allclose(found.poses[0][:3, 3], [1, 2, 3])
    assert np.allclose(Rotation.from_matrix(found.poses[0][:3, :3]).as_quat(), TURN)


@pytest.mark.parametrize(
    ("header", "more"),
    [
        ("#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []", 0),
        ("#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], "
         "v_RS_R_x [m s^-1], v_RS_R_y [m s^-1], v_RS_R_z [m s^-1], b_w_RS_S_x [rad s^-1], b_w_RS_S_y [rad s^-1], "
         "b_w_RS_S_z [rad s^-1], b_a_RS_S_x [m s^-2], b_a_RS_S_y [m s^-2], b_a_RS_S_z [m s^-2]", 9),
        ("", 9),  # only EuRoC's ground truth has 17 columns
        ("timestamp_ns;tx;ty;tz;qw;qx;qy;qz", 0),
    ],
)  # fmt: skip
def test_columns_of_euroc(written, header, more):
    x, y, z, w = TURN
    row = [EPOCH * 10**9, 1, 2, 3, w, x, y, z, *[0.5] * more]
    found = read_trajectory(written(f"{header}\n" + ",".join(map(str, row)) + "\n", "data.csv"))
    assert np.allclose(Rotation.from_matrix(found.poses[0][:3, :3]).as_quat(), TURN)
    assert stamps_ns(found, stamp_unit(found)) == [EPOCH * 10**9]


def test_lines_of_kitti_and_folders_of_matrices(written, tmp_path):
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_quat(TURN).as_matrix(), [1, 2, 3]
    row = " ".join(map(str, T[:3].reshape(-1)))
    found = read_trajectory(written(f"{row}\n{row}\n"))
    assert found.stamps is None and len(found.poses) == 2 and np.allclose(found.poses[1], T)
    (tmp_path / "pose").mkdir()
    np.savetxt(tmp_path / "pose" / "7.txt", T)
    np.savetxt(tmp_path / "pose" / "10.txt", np.full((4, 4), -np.inf))  # ScanNet: lost
    found = read_trajectory(tmp_path / "pose")
    assert found.numbers == [7, 10] and found.poses[1] is None
    np.savetxt(tmp_path / "pose" / "11.txt", 2 * np.eye(4))
    with pytest.raises(Motion4DError, match="no rotation"):
        read_trajectory(tmp_path / "pose")


@pytest.mark.parametrize("lost", ["NaN NaN NaN NaN NaN NaN NaN", "nan 0 0 0 0 0 1", "0 0 0 0 0 0 0"])
def test_rows_without_a_pose_keep_their_place(written, lost):
    found = read_trajectory(written(f"0.0 1 0 0 0 0 0 1\n0.1 {lost}\n0.2 3 0 0 0 0 0 1\n"))
    assert [pose is None for pose in found.poses] == [False, True, False]
    assert "1 of 3 poses" in found.notes[0]


def test_quaternions_are_brought_to_unit_length_and_odd_ones_are_said(written):
    found = read_trajectory(written("0 0 0 0 0 0 0.5 0.5\n1 0 0 0 0 0 0.5 0.5\n"))
    assert np.allclose(found.poses[0][:2, :2], [[0, -1], [1, 0]]) and "unit length" in found.notes[0]


@pytest.mark.parametrize("text", ["", "# only this\n", "0 NaN NaN NaN NaN NaN NaN NaN\n"])
def test_nothing_in_it(written, text):
    with pytest.raises(Motion4DError, match="holds no poses"):
        read_trajectory(written(text))


@pytest.mark.parametrize(
    ("stamps", "unit", "rate"),
    [
        ([f"{EPOCH}.5", f"{EPOCH}.6"], "s", None),
        ([f"{EPOCH}500", f"{EPOCH}600"], "ms", None),
        ([f"{EPOCH}500000", f"{EPOCH}600000"], "us", None),
        ([f"{EPOCH}500000000.000000", f"{EPOCH}600000000.000000"], "ns", None),
        (["1.400000000500000000e+18", "1.400000000600000000e+18"], "ns", None),
        (["0.0", "0.1", "0.2"], "s", None),
        (["0", "100000000", "200000000"], "ns", None),
        (["0", "33333", "66666"], "us", 30.0),
        (["0", "33", "67", "100"], "ms", 30.0),
    ],
)
def test_units_of_stamps(written, stamps, unit, rate):
    assert stamp_unit(read_trajectory(written(lines(stamps))), rate) == unit


def given(path, frames, *, rate_hz=10.0, counted=False, **options):
    report = SourceReport()
    poses = GivenPoses(path, frames, SourceOptions(**options), report, rate_hz=rate_hz, counted=counted)
    stamps = frames.stamps_ns or [round(k * 1e9 / rate_hz) for k in range(len(frames.stems))]
    found = [poses.at(k, stamp) for k, stamp in enumerate(stamps)]
    return [None if T is None else round(float(T[0, 3]), 4) for T in found], " | ".join(report.sentences())


def stamped(count, start=EPOCH, rate=10.0):
    return read_keys([f"{start + k / rate:.6f}" for k in range(count)])


def test_poses_are_interpolated_to_the_stamps_in_the_names(written):
    path = written(lines([f"{EPOCH + 0.05 + 0.01 * k:.4f}" for k in range(32)], lambda k: 0.05 + 0.01 * k))
    found, text = given(path, stamped(5))
    assert found == [0.05, 0.1, 0.2, 0.3, 0.36]  # at the ends its last pose holds for 50 ms
    assert not text
    _, text = given(path, stamped(9))
    assert "5 of 9 frames have a pose" in text


def test_order_and_repetition_in_a_trajectory(written):
    stamps = [0.2, 0.0, 0.1, 0.1, 0.3]
    found, text = given(written(lines(stamps)), Keys(["0", "1", "2", "3"], [0, 10**8, 2 * 10**8, 3 * 10**8], None))
    assert found == [0.1, 0.2, 0.0, 0.4] and "not in order" in text and "stands there twice" in text


def test_another_clock_is_refused(written):
    with pytest.raises(Motion4DError, match="do not meet the images'"):
        given(written(lines([f"{EPOCH + 500 + 0.1 * k}" for k in range(9)])), stamped(9))
    found, text = given(written(lines([f"{0.1 * k}" for k in range(9)])), stamped(9))
    assert found[8] == 0.8 and "taken in order" in text


def test_a_trajectory_that_began_late_is_not_laid_on_the_first_frame(written):
    frames = read_keys([f"{k:05d}" for k in range(10)])
    with pytest.raises(Motion4DError, match="which frame has the first pose"):
        given(written(lines([f"{EPOCH + 0.2 + 0.1 * k:.1f}" for k in range(8)])), frames)
    found, text = given(written(lines([f"{0.2 + 0.1 * k:.1f}" for k in range(8)])), frames)
    assert found == [None, None, *(round(0.1 * k, 4) for k in range(8))] and "0 s is the first frame" in text


def test_a_longer_trajectory_without_a_common_clock_is_laid_on_the_first_frame_and_that_is_said(written):
    frames = read_keys([f"{k:05d}" for k in range(5)])
    found, text = given(written(lines([f"{EPOCH + 0.01 * k:.2f}" for k in range(60)])), frames)
    assert found == [0.0, 1.0, 2.0, 3.0, 4.0] and "counted from the first of each" in text


def test_stamps_that_are_numbers_of_frames(written):
    frames = read_keys([f"{k:05d}" for k in range(10)])
    found, text = given(written(lines([0, 3, 7])), frames)
    assert found == [0.0, None, None, 0.1, None, None, None, 0.2, None, None] and "numbers of frames" in text
    video = Keys([str(k) for k in range(10)], [round(k * 1e9 / 30) for k in range(10)], None)
    assert given(written(lines(range(10))), video, rate_hz=30.0, counted=True)[0][9] == 0.9


def test_matrices_are_matched_by_the_numbers_of_their_files(tmp_path):
    for k in (2, 3):
        T = np.eye(4)
        T[0, 3] = k
        np.savetxt(tmp_path / f"frame-{k:06d}.pose.txt", T)
    found, text = given(tmp_path, read_keys([f"frame-{k:06d}" for k in range(5)]))
    assert found == [None, None, 2.0, 3.0, None] and "2 by number" in text


def test_lines_without_stamps_need_one_for_each_frame(written):
    row = " ".join(map(str, np.eye(4)[:3].reshape(-1)))
    path = written(f"{row}\n" * 6)
    assert given(path, read_keys([f"{k:06d}" for k in range(6)]))[0] == [0.0] * 6
    assert "line n belongs to image number n" in given(path, read_keys(["000002", "000005"]))[1]
    with pytest.raises(Motion4DError, match="6 poses without stamps for 9 frames"):
        given(path, read_keys([f"{k:06d}" for k in range(9)]))


def test_a_bodys_header_asks_for_the_cameras_place(written):
    header = "#timestamp, p_RS_R_x, p_RS_R_y, p_RS_R_z, q_RS_w, q_RS_x, q_RS_y, q_RS_z\n"
    path = written(header + "0.0,1,0,0,1,0,0,0\n0.1,2,0,0,1,0,0,0\n")
    assert "base_to_camera" in given(path, read_keys(["0", "1"]))[1]
    T = np.eye(4)
    T[0, 3] = 0.5
    assert given(path, read_keys(["0", "1"]), extrinsic=T) == ([1.5, 2.5], "")


def test_words_where_a_matrix_would_end_are_no_matrix(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(" ".join(["1.0", *["0"] * 12, "p_y", "q_x", "0", "1"]) + "\n")  # found by fuzzing
    with pytest.raises(Motion4DError, match="holds no poses"):
        read_trajectory(file)


@pytest.mark.parametrize("text", ["1e999999999 0 0 0 0 0 0 1\n", "1e400 0 0 0 0 0 0 1\n"])
def test_what_fuzzing_found_is_one_line(tmp_path: Path, text: str) -> None:
    """Stamps of a few letters that would be numbers of gigabytes."""
    file = tmp_path / "a.txt"
    file.write_text(text)
    with pytest.raises(Motion4DError, match="line"):
        read_trajectory(file)


def test_an_array_that_claims_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.tile(np.eye(4), (9, 1, 1)))
    data = file.read_bytes()
    file.write_bytes(data.replace(b"(9, 4, 4), }", b"(9999999999, 4, 4), }").replace(b"         \n", b"\n", 1))
    with pytest.raises(Motion4DError, match="cannot be read as poses"):
        read_trajectory(file)
