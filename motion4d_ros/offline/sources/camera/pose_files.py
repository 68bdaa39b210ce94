"""Trajectories in files: TUM, EuRoC and other tables with a header, KITTI, 4x4 matrices.

What a file leaves open (the unit of its stamps) is decided by :func:`stamp_unit`, never taken for granted.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from motion4d_ros.offline.sources.files.file_names import NS_PER, epoch_unit, natural_key
from motion4d_ros.offline.trajectory import pose_matrix
from motion4d_ros.types import FloatArray, Motion4DError

TUM_COLUMNS = ("time", "x", "y", "z", "qx", "qy", "qz", "qw")
_EUROC_FIELDS = 17  # stamp, position, quaternion (w first), velocity, two biases
_FASTEST_HZ, _SLOWEST_HZ = 2000.0, 0.5  # of trajectories
_STAMP_DIGITS = 19  # ns since 1970: a few letters such as 1e999999999 would be a number of gigabytes
_UNIT_NORM_SLACK = 0.05  # a quaternion whose length differs more was no unit quaternion


@dataclass
class Trajectory:
    """Rows of a file in its order. A row without a usable pose (NaN, all zero) keeps its place as None."""

    name: str
    poses: list[FloatArray | None]  # (4, 4)
    stamps: list[Decimal] | None = None  # as they are written
    unit: str = ""  # of the stamps, where the file says it
    numbers: list[int] | None = None  # of the files that the poses come from, one each
    of_body: bool = False  # the header says that these are poses of a body (EuRoC's RS), which carries the camera
    notes: list[str] = field(default_factory=list)

    @property
    def usable(self) -> int:
        """Rows that hold a pose."""
        return sum(pose is not None for pose in self.poses)


def read_trajectory(path: Path) -> Trajectory:
    """A trajectory file, or a folder of text files that hold a 4x4 matrix each. Raises `Motion4DError`."""
    if path.is_dir():
        trajectory = _folder(path)
    elif path.suffix.lower() == ".npy":
        trajectory = _array(path)
    else:
        trajectory = _table(path)
    if not trajectory.usable:
        raise Motion4DError(f"{path}: holds no poses{' but NaN or zeros' if trajectory.poses else ''}")
    lost = len(trajectory.poses) - trajectory.usable
    if lost:
        trajectory.notes.append(f"{path.name}: {lost} of {len(trajectory.poses)} poses are NaN or zero: left out")
    return trajectory


def stamp_unit(trajectory: Trajectory, rate_hz: float | None = None) -> str:
    """The unit of a trajectory's stamps: as the file says, by the epoch they lie in, else by their spacing.

    `rate_hz` of the pictures helps where the spacing alone fits several.
    """
    stamps = trajectory.stamps or []
    if trajectory.unit:
        return trajectory.unit
    if unit := epoch_unit(sorted(stamps)[len(stamps) // 2]):
        return unit
    steps = sorted(b - a for a, b in zip(sorted(stamps), sorted(stamps)[1:], strict=False) if b > a)
    if not steps:
        return "s"
    middle = float(steps[len(steps) // 2])
    rates = {unit: 1e9 / (middle * ns) for unit, ns in NS_PER.items()}
    fitting = {unit: rate for unit, rate in rates.items() if _SLOWEST_HZ <= rate <= _FASTEST_HZ}
    if rate_hz is not None and fitting:
        return min(fitting, key=lambda unit: abs(np.log(fitting[unit] / rate_hz)))
    return next(iter(fitting), "s")


def stamps_ns(trajectory: Trajectory, unit: str) -> list[int]:
    """The stamps as integer nanoseconds."""
    return [int(stamp * NS_PER[unit]) for stamp in trajectory.stamps or []]


# -- kinds of files -------------------------------------------------------------------------------------------------


def _folder(path: Path) -> Trajectory:
    files = [f for f in path.glob("*.txt") if "intrinsic" not in f.name.lower() and "calib" not in f.name.lower()]
    posed = [file for file in files if "pose" in file.name.lower()]
    chosen = sorted(posed if len(posed) > 1 else files, key=natural_key)
    if not chosen:
        raise Motion4DError(f"{path}: no *.txt files with 4x4 poses")
    numbers = [[int(digits) for digits in re.findall(r"\d+", file.stem)] for file in chosen]
    last = [found[-1] for found in numbers if found]
    unique = len(last) == len(chosen) == len(set(last))
    return Trajectory(str(path), [_matrix_file(file) for file in chosen], numbers=last if unique else None)


def _matrix_file(path: Path) -> FloatArray | None:
    try:
        values = np.loadtxt(path)
    except (OSError, ValueError):
        values = np.zeros(0)
    if values.shape not in ((4, 4), (3, 4)):
        raise Motion4DError(f"{path}: expected a 4x4 camera-to-map matrix")
    return _rigid(values, str(path))


def _array(path: Path) -> Trajectory:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # a header that claims more than there is is refused
    except (OSError, ValueError, EOFError) as error:
        raise Motion4DError(f"{path}: cannot be read as poses ({error})") from None
    if values.ndim != 3 or values.shape[1:] not in ((4, 4), (3, 4)):
        raise Motion4DError(f"{path}: {values.shape}; expected (N, 4, 4) camera-to-map matrices")
    return Trajectory(path.name, [_rigid(T, f"{path}, pose {k}") for k, T in enumerate(values.astype(float))])


def _table(path: Path) -> Trajectory:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise Motion4DError(f"{path}: cannot be read as a trajectory (no text file)") from None
    except OSError as error:
        raise Motion4DError(f"{path}: cannot be read as a trajectory ({error.strerror or error})") from None
    lines = text.splitlines()
    header = _header(lines)
    rows = [(number, _fields(line)) for number, line in enumerate(lines, 1)]
    rows = [(number, fields) for number, fields in rows if fields]
    rows = list(itertools.dropwhile(lambda row: _is_words(row[1]), rows))
    if not rows:
        raise Motion4DError(f"{path}: holds no poses")
    notes = []
    width = len(rows[0][1])
    if len(rows) > 1 and len(rows[-1][1]) < width and not text.endswith("\n"):
        notes.append(f"{path.name}: its last line breaks off: left out")
        rows.pop()
    columns = _columns(header, rows[0][1], path)
    stamps: list[Decimal] = []
    poses: list[FloatArray | None] = []
    off_unit = 0
    for number, fields in rows:
        try:
            if len(fields) != width:
                raise ValueError
            stamp, pose, norm = _row(fields, columns)
        except (ValueError, InvalidOperation, Motion4DError):
            raise Motion4DError(
                f"{path}, line {number}: expected {_expected(columns)}, got {lines[number - 1].strip()[:80]!r}"
            ) from None
        off_unit += abs(norm - 1.0) > _UNIT_NORM_SLACK
        poses.append(pose)
        if stamp is not None:
            stamps.append(stamp)
    if 2 * off_unit > len(poses):
        notes.append(f"{path.name}: its quaternions have no unit length: is the order of its columns right?")
    body = header is not None and any(name.lower().startswith("p_rs") for name in header[0])
    unit = "" if header is None else header[1]
    return Trajectory(path.name, poses, stamps or None, unit, of_body=body, notes=notes)


# -- tables ---------------------------------------------------------------------------------------------------------


def _fields(line: str) -> list[str]:
    return line.split("#")[0].replace(",", " ").replace(";", " ").replace("\t", " ").split()


def _is_words(fields: Sequence[str]) -> bool:
    """A header without a comment sign: its first field begins with a letter (or %), and is no NaN."""
    first = fields[0].lstrip("\"'")
    return bool(first) and (first[0].isalpha() or first[0] == "%") and first.lower() not in ("nan", "inf", "infinity")


def _header(lines: Sequence[str]) -> tuple[list[str], str] | None:
    """(names of the columns, unit of the stamps) of the last line before the numbers that names a pose."""
    found = None
    for line in lines:
        fields = _fields(line)
        if fields and not _is_words(fields):
            break
        text = line.strip().lstrip("#%/ ").replace('"', "")
        units = re.match(r"[^,\s\[(]+[\s,]*[\[(]\s*(s|ms|us|ns|sec|nsec|µs)\s*[\])]", text, re.IGNORECASE)
        names = re.findall(r"[^\s,;]+", re.sub(r"[\[(][^\])]*[\])]", " ", text))
        if {"x", "y", "z", "qx", "qy", "qz", "qw"} <= {_role(name) for name in names[:40]}:
            unit = "" if units is None else units.group(1).lower()
            unit = {"sec": "s", "nsec": "ns", "µs": "us"}.get(unit, unit) or _unit_in_name(names[0])
            found = (names, unit)
    return found


def _unit_in_name(name: str) -> str:
    ending = re.search(r"(?:^|[_.])(ns|us|ms|nsec|nanoseconds|sec|s)$", name.lower())
    return {"nsec": "ns", "nanoseconds": "ns", "sec": "s"}.get(ending.group(1), ending.group(1)) if ending else ""


def _role(name: str) -> str:
    """What a column holds, by its name: time, x, y, z, qx, qy, qz, qw, or "" for anything else."""
    text = name.lower().rstrip(":")
    if "time" in text or "stamp" in text or text == "t":
        return "time"
    match = re.fullmatch(r"(?:(.*)[^a-z0-9]|([a-z]?))([wxyz])", text)
    if match is None:
        return ""
    before = match.group(1) if match.group(1) is not None else match.group(2)
    if before[:1] == "q" or any(part in before for part in ("quat", "orient", "rot")):
        return f"q{match.group(3)}"
    if match.group(3) == "w":
        return "qw"
    position = before in ("", "p", "t", "r") or "position" in before or "translation" in before
    if position or re.match(r"(p|t|pos|trans)([^a-z]|$)", before):
        return match.group(3)
    return ""


def _columns(header: tuple[list[str], str] | None, fields: Sequence[str], path: Path) -> tuple[str, ...]:
    """The role of every column; matrices are `m` 12 or 16 times."""
    width = len(fields)
    if header is not None:
        roles: list[str] = []
        for name in header[0][:width]:
            role = _role(name)
            roles.append(role if role not in roles else "")
        if {"x", "y", "z", "qx", "qy", "qz", "qw"} <= set(roles) and width >= 7:
            return tuple(roles + [""] * (width - len(roles)))
    if width in (12, 16):
        return ("m",) * width
    if width == 13 or (width == 17 and _is_last_row(fields[13:])):
        return ("time", *("m",) * (width - 1))
    if width == _EUROC_FIELDS:
        return ("time", "x", "y", "z", "qw", "qx", "qy", "qz", *("",) * 9)
    return TUM_COLUMNS


def _is_last_row(fields: Sequence[str]) -> bool:
    """Whether these are the last row of a rigid 4x4 matrix."""
    try:
        return [float(text) for text in fields] == [0.0, 0.0, 0.0, 1.0]
    except ValueError:
        return False


def _expected(columns: Sequence[str]) -> str:
    if columns == TUM_COLUMNS:
        return "`stamp x y z qx qy qz qw`"
    return f"{len(columns)} numbers" if "m" in columns else f"`{' '.join(name or '…' for name in columns)}`"


def _row(fields: Sequence[str], columns: Sequence[str]) -> tuple[Decimal | None, FloatArray | None, float]:
    """(stamp, pose or None, length of the quaternion) of one line. Raises `ValueError`, `InvalidOperation`."""
    if len(fields) != len(columns):
        raise ValueError
    values = {role: text for role, text in zip(columns, fields, strict=True) if role not in ("", "m")}
    stamp = Decimal(values["time"]) if "time" in values else None
    if stamp is not None and not (stamp.is_finite() and stamp.adjusted() < _STAMP_DIGITS):
        raise ValueError
    if "m" in columns:
        numbers = np.array([float(text) for role, text in zip(columns, fields, strict=True) if role == "m"])
        return stamp, _rigid(numbers.reshape(-1, 4), ""), 1.0
    position = np.array([float(values[role]) for role in ("x", "y", "z")])
    quaternion = np.array([float(values[role]) for role in ("qx", "qy", "qz", "qw")])
    norm = float(np.linalg.norm(quaternion))
    if not np.isfinite(position).all() or not np.isfinite(norm) or (norm == 0.0 and not position.any()):
        return stamp, None, 1.0
    return stamp, pose_matrix(position, quaternion), norm


def _rigid(values: FloatArray, where: str) -> FloatArray | None:
    """A (3, 4) or (4, 4) matrix as a rigid (4, 4) one; None where it holds NaN or infinity, as lost poses do."""
    if not np.isfinite(values).all():
        return None
    R = values[:3, :3]
    if not np.allclose(R @ R.T, np.eye(3), atol=0.02) or np.linalg.det(R) < 0:
        raise Motion4DError(f"{where}: its upper left 3x3 block is no rotation: expected camera-to-map matrices")
    u, _, vt = np.linalg.svd(R)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = u @ vt, values[:3, 3]
    return T
