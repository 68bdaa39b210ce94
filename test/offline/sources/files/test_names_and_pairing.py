"""What file names say, and which file belongs to which frame."""

from __future__ import annotations

from pathlib import Path

import pytest

from motion4d_ros.offline.sources.files.file_names import in_order, read_keys
from motion4d_ros.offline.sources.files.pairing import associate, pair
from motion4d_ros.types import Motion4DError

NS = 10**9


@pytest.mark.parametrize(
    ("stems", "stamps_ns"),
    [
        (["1305031102.175304", "1305031102.2"], [1305031102_175304000, 1305031102_200000000]),
        (["1403636579763555584", "1403636579813555584"], [1403636579_763555584, 1403636579_813555584]),
        (["cam_1305031102175", "cam_1305031102208"], [1305031102_175000000, 1305031102_208000000]),
        (["1305031102175304", "1305031102208000"], [1305031102_175304000, 1305031102_208000000]),
        (["rgb_1305031102_175304_left", "rgb_1305031102_208_left"], [1305031102_175304000, 1305031102_208000000]),
        (["1305031102_33", "1305031102_66000000"], [1305031102_000000033, 1305031102_066000000]),  # sec_nanosec
        (["0.0", "0.0333", "0.1"], [0, 33_300_000, 100_000_000]),
    ],
)
def test_stamps_in_names(stems, stamps_ns):
    assert read_keys(stems).stamps_ns == stamps_ns


@pytest.mark.parametrize(
    ("stems", "numbers"),
    [
        (["frame-000000.color", "frame-000005.color"], [0, 5]),
        (["cam0_001", "cam0_012"], [1, 12]),
        (["0000000005", "0000000006"], [5, 6]),  # ten digits, as KITTI writes them, are no time
        (["1.0001", "1.0002"], [1, 2]),  # 10 kHz: a version and a number
        (["a1b1", "a2b2"], None),
        (["a", "b"], None),
    ],
)
def test_numbers_in_names(stems, numbers):
    keys = read_keys(stems)
    assert keys.stamps_ns is None and keys.numbers == numbers


def test_stamps_are_sorted_by_time_and_numbers_as_people_do():
    names = ["1551915398.5.png", "1551915398.0625.png", "1551915398.0.png", "1551915398.125.png"]
    assert [path.name for path in in_order([Path(name) for name in names])] == [names[k] for k in (2, 1, 3, 0)]
    assert [path.name for path in in_order([Path("f10.png"), Path("f9.png")])] == ["f9.png", "f10.png"]


def test_nearest_stamps_are_used_once():
    """A depth image that is missing must not be replaced by its neighbour's."""
    first = [0, 33, 66, 100]
    assert associate(first, [4, 70, 104], 40) == {0: 0, 2: 1, 3: 2}
    assert associate(first, [20], 40) == {1: 0} and associate(first, [200], 40) == {}


def numbered(*numbers):
    return read_keys([f"{number:05d}" for number in numbers])


def matched(frames, files, *, counted=False):
    """Number of the frame -> number of the file."""
    found = pair(frames, files, "masks", "DIR", counted=counted)
    own = frames.numbers if frames.numbers is not None else range(len(frames.stems))
    return {own[i]: files.numbers[k] for i, k in found.matched.items()}, found


@pytest.mark.parametrize(
    ("frames", "files", "expected", "tell"),
    [
        (range(6), range(6), lambda n: n, False),
        (range(6), range(1, 7), lambda n: n + 1, True),  # counted from 0 and from 1
        (range(1, 7), range(6), lambda n: n - 1, True),
        (range(1, 10), range(4, 8), lambda n: n, True),  # part of a recording
        (range(1, 10), (0, 3, 8), lambda n: n - 1, True),  # part of it, and 0 tells how it is counted
        (range(0, 50, 5), range(10), lambda n: n // 5, True),  # every fifth image was kept, and numbered anew
        (range(100, 106), range(6), lambda n: n - 100, True),
        (range(5), range(40), lambda n: n, True),  # masks of more than the images
        (range(10), range(5, 15), lambda n: n, True),  # half of them: the numbers hold
    ],
)
def test_numbers_are_matched(frames, files, expected, tell):
    pairs, found = matched(numbered(*frames), numbered(*files))
    wanted = {number: expected(number) for number in frames if expected(number) in files}
    assert pairs == wanted and found.tell == tell


@pytest.mark.parametrize(
    ("files", "first"),
    [(range(4, 12), 0), (range(12), 0), (range(1, 13), 1), (range(5, 13), 1), (range(4, 9), 0), ((0, 11), 0)],
)
def test_masks_of_a_video_are_counted_from_0_or_1(files, first):
    frames = read_keys([str(k) for k in range(12)])
    pairs, found = matched(frames, numbered(*files), counted=True)
    assert pairs == {number - first: number for number in files}
    assert found.tell == (len(files) < 12 or first == 1)
    assert f"counted from {first}" in found.how


def test_numbered_masks_of_images_named_by_stamps_are_counted():
    frames = read_keys([f"{1305031102 + 0.1 * k:.6f}" for k in range(8)])
    found = pair(frames, numbered(3, 4, 5), "masks", "DIR", counted=False)
    assert found.matched == {3: 0, 4: 1, 5: 2} and found.tell


@pytest.mark.parametrize(
    ("frames", "files"),
    [(["a", "b", "c"], ["x", "y"]), ([f"{k:03d}" for k in range(9)], ["500", "507", "511"]), (["1", "2"], ["q"])],
)
def test_other_counts_are_never_paired_by_position(frames, files):
    with pytest.raises(Motion4DError, match="which belongs to which"):
        pair(read_keys(frames), read_keys(files), "masks", "DIR", counted=False)


def test_names_without_numbers_are_matched_by_name():
    found = pair(read_keys(["a", "b", "c"]), read_keys(["b", "c"]), "masks", "DIR", counted=False)
    assert found.matched == {1: 0, 2: 1} and found.tell
    assert pair(read_keys(["a", "b"]), read_keys(["x", "y"]), "masks", "DIR", counted=False).matched == {0: 0, 1: 1}


def test_stamps_of_another_recording_are_refused():
    frames = read_keys([f"{1305031102 + 0.1 * k:.6f}" for k in range(8)])
    files = read_keys([f"{1305031202 + 0.1 * k:.6f}" for k in range(8)])
    with pytest.raises(Motion4DError, match=r"nearest: 99\.3 s"):
        pair(frames, files, "depth files", "DIR", counted=False)
