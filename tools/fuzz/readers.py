"""Coverage-guided fuzzing of what reads bytes from strangers: pictures, messages, bags and trajectories.

    pip install atheris
    python tools/fuzz/readers.py TARGET [tools/fuzz/corpus/TARGET] -runs=100000   # any option of libFuzzer
    python tools/fuzz/readers.py --make-corpus tools/fuzz/corpus                  # writes the seeds anew

TARGET: picture, message, mcap, rosbag1 or trajectory. What a reader says in one line (`Motion4DError`) is right;
everything else that it raises is a finding, as are minutes and gigabytes.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

try:
    import atheris

    instrumented = atheris.instrument_imports(include=["motion4d_ros", "rosbags"])
except ImportError:  # the seeds can be made without it
    atheris, instrumented = None, contextlib.nullcontext()

with instrumented:
    import cv2
    import numpy as np
    from rosbags.rosbag1 import Writer as Writer1
    from rosbags.rosbag2 import StoragePlugin
    from rosbags.rosbag2 import Writer as Writer2
    from rosbags.typesys import Stores, get_typestore

    from motion4d_ros.imagery.backends import choose_backend
    from motion4d_ros.imagery.conversions import read_depth, read_labels, read_rgb
    from motion4d_ros.imagery.encodings import ENCODINGS
    from motion4d_ros.offline.sources.bags.bag_reader import BagReader
    from motion4d_ros.offline.sources.camera.pose_files import read_trajectory, stamp_unit, stamps_ns
    from motion4d_ros.offline.sources.interfaces import SourceReport
    from motion4d_ros.types import Motion4DError

MOST_MESSAGES = 200
LIMITS = ("-rss_limit_mb=3000", "-timeout=30")
FORMATS = ("jpeg", "png", "16UC1; compressedDepth png", "32FC1; compressedDepth", "bayer_rggb8; jpeg compressed")


def _attempt(*jobs: Callable[[], Any]) -> None:
    for job in jobs:
        try:
            job()
        except Motion4DError:
            continue


def picture(data: bytes) -> None:
    """A compressed image as colours, depth and ids. The first byte chooses the format."""
    if not data:
        return
    message = SimpleNamespace(format=FORMATS[data[0] % len(FORMATS)], data=data[1:])
    _attempt(lambda: read_rgb(message, BACKEND), lambda: read_depth(message, 10**6), lambda: read_labels(message))


def message(data: bytes) -> None:
    """A raw image: encoding, sides and step from the first bytes."""
    if len(data) < 8:
        return
    names = sorted(ENCODINGS)
    image = SimpleNamespace(
        encoding=names[data[0] % len(names)], width=data[1], height=data[2], is_bigendian=data[3] % 3,
        step=int.from_bytes(data[4:6], "little"), data=data[6:],
    )  # fmt: skip
    _attempt(lambda: read_rgb(image, BACKEND), lambda: read_depth(image), lambda: read_labels(image))


def _bag(path: Path) -> None:
    reader = BagReader(path, SourceReport())
    try:
        for number, _ in enumerate(reader.messages(list(reader.types))):
            if number > MOST_MESSAGES:
                break
    finally:
        reader.close()


def _as_file(name: str, data: bytes, read: Callable[[Path], Any]) -> None:
    path = Path(FOLDER) / name
    path.write_bytes(data)
    _attempt(lambda: read(path))


def mcap(data: bytes) -> None:
    """An mcap file."""
    _as_file("a.mcap", data, _bag)


def rosbag1(data: bytes) -> None:
    """A bag of ROS 1."""
    _as_file("a.bag", data, _bag)


def trajectory(data: bytes) -> None:
    """A table of poses. The first byte chooses the kind of file."""

    def read(path: Path) -> None:
        found = read_trajectory(path)
        if found.stamps:
            stamps_ns(found, stamp_unit(found))

    if data:
        _as_file(("a.tum", "a.txt", "a.csv", "a.npy")[data[0] % 4], data[1:], read)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "picture": picture, "message": message, "mcap": mcap, "rosbag1": rosbag1, "trajectory": trajectory,
}  # fmt: skip


def make_corpus(folder: Path) -> None:
    """Small, good files of every kind: what mutations start from."""
    for name in TARGETS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    depth = np.full((16, 16), 1500, np.uint16)
    parts = {"jpg": (0, pixels), "png": (1, pixels), "webp": (0, pixels), "tiff": (0, pixels), "bmp": (0, pixels)}
    for suffix, (kind, image) in parts.items():
        data = cv2.imencode(f".{suffix}", image)[1].tobytes()
        (folder / "picture" / f"a.{suffix}").write_bytes(bytes([kind]) + data)
    deep = cv2.imencode(".png", depth)[1].tobytes()
    (folder / "picture" / "depth.png").write_bytes(b"\x02" + bytes(12) + deep)
    for number, name in enumerate(sorted(ENCODINGS)):
        size = 16 * 16 * 2
        head = bytes([number, 16, 16, 0]) + size.to_bytes(2, "little")
        if name in ("rgb8", "16UC1", "nv12", "bayer_rggb8", "yuv422"):
            (folder / "message" / name).write_bytes(head + bytes(16 * size))
    (folder / "trajectory" / "tum").write_bytes(
        b"\x00# time x y z qx qy qz qw\n1.0 0 0 0 0 0 0 1\n1.1 .1 0 0 0 0 0 1\n"
    )
    euroc = b"#timestamp,p_x,p_y,p_z,q_w,q_x,q_y,q_z\n1403636579763555584,4.6,-1.7,.7,.5,-.1,-.8,-.1\n"
    (folder / "trajectory" / "euroc").write_bytes(b"\x02" + euroc)
    (folder / "trajectory" / "kitti").write_bytes(b"\x01" + b"1 0 0 0 0 1 0 0 0 0 1 0\n" * 3)
    _make_bags(folder)


def _make_bags(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        store = get_typestore(Stores.ROS2_JAZZY)
        raw = store.serialize_cdr(store.types["std_msgs/msg/String"]("words"), "std_msgs/msg/String")
        with Writer2(Path(place) / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer2:
            connection2 = writer2.add_connection("/words", "std_msgs/msg/String", typestore=store)
            for number in range(3):
                writer2.write(connection2, 10**9 + number, raw)
        (made,) = (Path(place) / "bag").glob("*.mcap")
        (folder / "mcap" / "words").write_bytes(made.read_bytes())
        old = get_typestore(Stores.ROS1_NOETIC)
        with Writer1(Path(place) / "a.bag") as writer1:
            connection1 = writer1.add_connection("/words", "std_msgs/msg/String", typestore=old)
            text = old.serialize_ros1(old.types["std_msgs/msg/String"]("words"), "std_msgs/msg/String")
            for number in range(3):
                writer1.write(connection1, 10**9 + number, text)
        (folder / "rosbag1" / "words").write_bytes((Path(place) / "a.bag").read_bytes())


def main() -> int:
    """Command line."""
    if len(sys.argv) == 3 and sys.argv[1] == "--make-corpus":
        make_corpus(Path(sys.argv[2]))
        return 0
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        print(__doc__)
        return 2
    if atheris is None:
        print("needs atheris: pip install atheris")
        return 2
    name = sys.argv.pop(1)
    atheris.Setup([*sys.argv, *LIMITS], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    BACKEND = choose_backend()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as FOLDER:
        sys.exit(main())
