"""Fuses our objects with a second sensor's, by their covariances alone: fuse_tracks.py SCENE OUT

SCENE holds gt.npz, OUT is what `motion4d analyze` made of it. The second sensor is simulated: it sees the position of
each object with 1 cm of noise, and a Kalman filter of its own tracks it. What we tell of a frame is an estimate that
has seen other frames, too, and no new measurement: so the two *tracks* are fused, frame by frame, as independent.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation


def get(table: dict[str, np.ndarray], *names: str) -> np.ndarray:
    """(T, N) columns as numbers."""
    return np.stack([table[name].astype(float) for name in names], 1)


scene, out = sys.argv[1:3]
truth, rng, dt, noise, agility = np.load(f"{scene}/gt.npz"), np.random.default_rng(0), 0.1, 0.01, 1.0
rows: dict[int, dict[int, dict[str, str]]] = {}
for row in csv.DictReader(Path(out, "objects.csv").read_text().splitlines()):
    rows.setdefault(int(row["id"]), {})[int(row["frame"])] = row

F, H = np.kron([[1, dt], [0, 1]], np.eye(3)), np.eye(3, 6)
Q = agility**2 * np.kron([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]], np.eye(3))
for true_id in np.unique(truth["query_object"][truth["query_object"] > 0]):
    mine = truth["query_object"] == true_id
    path, seen = truth["tracks_xyz"][mine].mean(0).astype(float), truth["visible"][mine].mean(0) > 0.3
    state = np.hstack([path, np.gradient(path, dt, axis=0)])  # (T, 6): what both sensors estimate
    near = {i: np.median([np.hypot(*(np.array([float(r["x"]), float(r["y"])]) - path[k, :2])) for k, r in of.items()])
            for i, of in rows.items()}  # fmt: skip
    ours = {k: r for k, r in rows[min(near, key=lambda i: near[i])].items() if r["state"] == "tracked" and seen[k]}
    table, frames = {name: np.array([r[name] for r in ours.values()]) for name in row}, list(ours)
    R, t = Rotation.from_quat(get(table, "qx", "qy", "qz", "qw")), get(table, "x", "y", "z")
    place = R.apply(np.median(R.inv().apply(path[frames] - t), axis=0)) + t  # the same point of the body as the truth's
    a = np.hstack([place, get(table, "vx", "vy", "vz") + np.cross(get(table, "wx", "wy", "wz"), place - t)])
    A = [np.diag(s**2) for s in get(table, "sigma_x", "sigma_y", "sigma_z", "sigma_vx", "sigma_vy", "sigma_vz")]
    b, B, sums = np.r_[path[0], 0, 0, 0], np.diag([1.0] * 6), {"ours": [], "theirs": [], "fused": []}
    for k in range(len(path)):
        b, B = F @ b, F @ B @ F.T + Q
        gain = B @ H.T @ np.linalg.inv(H @ B @ H.T + noise**2 * np.eye(3))
        b, B = b + gain @ (path[k] + noise * rng.standard_normal(3) - H @ b), B - gain @ H @ B
        if k in ours:
            i = frames.index(k)
            fused = np.linalg.inv(np.linalg.inv(A[i]) + np.linalg.inv(B))
            c = fused @ (np.linalg.solve(A[i], a[i]) + np.linalg.solve(B, b))
            for name, x, P in (("ours", a[i], A[i]), ("theirs", b, B), ("fused", c, fused)):
                e = x - state[k]
                sums[name].append([e @ np.linalg.solve(P, e) / 6, e[:3] @ e[:3], e[3:] @ e[3:]])
    for name, values in sums.items():
        nees, position, velocity = np.mean(values, axis=0)
        print(f"object {true_id}, {name:>6}: off by {1e3 * position**0.5:.1f} mm, {velocity**0.5:.3f} m/s; "
              f"squared error by stated variance {nees:.2f}")  # fmt: skip
