"""Camera poses from the images alone (`pose.source: visual`).

Life of a run:

1. *Turning.* Until two views show parallax, only the rotation can be told. Poses are rotations about the first frame's
   position, the scale is UNKNOWN. A camera that never translates stays here for ever.
2. *Initialisation.* Two views with parallax give the first points; the frames between them get their poses by PnP,
   all is bundle-adjusted. Poses given out before change now: :meth:`VisualPose.revised_poses` hands out better ones.
3. *Tracking.* Every frame is placed by robust PnP on recognised points; keyframes add points; a sliding window of them
   is bundle-adjusted. Moving objects are left out by consensus and by the masks that are known.
4. *Loss.* A few frames are bridged by prediction (PREDICTED), then the pose is LOST, never guessed. Lost frames
   are compared with the whole map, after a while only some of them, so that tracking resumes where the camera looks at
   known things again. If it has come to see something else for good (:attr:`VisualPose.stranded`), the engine may begin
   a new scene.

Scale is RELATIVE (the median depth at initialisation is `UNSCALED_DISTANCE`) unless something gives metres: metric
depth or odometry that comes with the frames, `pose.known_height` or `pose.known_distance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.geometry.bundle import refine_pose, solve_pose
from motion4d_ros.geometry.rigid import inverse_pose, pose_matrix, transform_points
from motion4d_ros.geometry.two_view import normalise, reproject, rotation_between, two_view
from motion4d_ros.priors.flow.optical_flow import working_size
from motion4d_ros.priors.interfaces import PosePrior, SceneHint
from motion4d_ros.priors.pose.scale_cues import ScaleCues
from motion4d_ros.priors.pose.sparse_map import Features, Keyframe, SparseMap, detect, match, match_near
from motion4d_ros.types import UNSCALED_DISTANCE, BoolArray, Camera, FloatArray, Frame, IntArray, PoseStatus, Scale

MAX_SIDE = 480  # px, images are searched at this size
INIT_PARALLAX = np.radians(1.2)  # median angle between rays that initialisation waits for
INIT_CLEAR = 10.0  # times the noise that the parallax must be
SHARP_PARALLAX, SHARP_CLEAR = np.radians(0.4), 40.0  # less of it will do where the matches are that good
INIT_POINTS = 40
INIT_BUFFER = 25  # frames that wait for initialisation
MIN_INLIERS = 15
KEYFRAMES = 80
SEARCH_EAGERLY, SEARCH_EVERY = 10, 4  # frames lost, after which the whole map is searched in every fourth frame only
PROVEN = 8  # frames that must have recognised a point before it counts fully


@dataclass
class _Waiting:
    """A frame before initialisation."""

    features: Features
    T_map_cam: FloatArray  # rotation only
    given: FloatArray | None  # pose that came with the frame
    depth_m: NDArray[np.float32] | None


class VisualPose:
    """A `PoseSource` that needs nothing but images and a calibrated camera. Deterministic."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rng = np.random.default_rng(config.run.seed)
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._camera: Camera | None = None
        self._input_size: tuple[int, int] | None = None
        self._waiting: list[_Waiting] = []
        self._map: SparseMap | None = None
        self._scale = Scale.UNKNOWN
        self._pose: FloatArray = np.eye(4)  # T_map_cam of the newest placed frame
        self._velocity: FloatArray = np.eye(4)  # T_cam(n)_cam(n-1) of the last step
        self._revised: dict[int, FloatArray] = {}
        self._tracked_at_keyframe = 0
        self._since_keyframe = 0
        self.lost_for = 0  # consecutive frames without a measured pose
        self._elsewhere = 0  # of these, frames that show what the one before showed
        self._unplaced: Features | None = None  # the newest frame, if it has no measured pose
        self.cue = ""  # in words: what fixed the scale

    @property
    def scale(self) -> Scale:
        """What a length of 1 means so far."""
        return self._scale

    @property
    def stranded(self) -> bool:
        """Whether the camera has seen something unknown for `pose.restart_after` frames: it will hardly come back.

        Frames count that have no pose but recognise their predecessor, which darkness, blur and noise do not.
        """
        return 0 < self._config.pose.restart_after <= self._elsewhere

    def revised_poses(self) -> dict[int, FloatArray]:
        """Poses of earlier frames that initialisation changed since the last call: frame index -> T_map_cam (4, 4)."""
        revised, self._revised = self._revised, {}
        return revised

    def saved_map(self) -> dict[str, NDArray[Any]]:
        """See `SavesMap`."""
        metric = np.array([self._scale is Scale.METRIC])
        return {} if self._map is None else self._map.packed() | {"metric": metric}

    def go_on_in(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """See `SavesMap`."""
        self.reset()
        self._map = SparseMap.unpacked(saved)
        self._scale = Scale.METRIC if saved["metric"].ravel()[0] else Scale.RELATIVE
        self.lost_for = self._config.pose.bridge + 1

    def pose(self, frame: Frame, hint: SceneHint | None) -> PosePrior:
        """Pose of the next frame in the map, whose origin is the first frame's camera."""
        if self._input_size != frame.camera.size:
            if self._input_size is not None:
                self.reset()
            self._input_size = frame.camera.size
        features = self._features(frame, hint)
        found = self._before_map(frame, features) if self._map is None else self._track(features)
        self._note_where(features)
        return found

    # ---- features ---------------------------------------------------------------------------------------------------

    def _features(self, frame: Frame, hint: SceneHint | None) -> Features:
        height, width = working_size(*frame.camera.size, MAX_SIDE)
        factor = max(height, width) / max(frame.camera.size)
        self._camera = camera = frame.camera.scaled(factor) if factor < 1 else frame.camera
        gray = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        if factor < 1:
            gray = cv2.resize(gray, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        masks = frame.masks if hint is None or hint.masks is None else hint.masks
        allowed = None
        if masks is not None and (masks > 0).mean() < 0.6:
            moving = cv2.resize(
                (masks > 0).astype(np.uint8), (camera.width, camera.height), interpolation=cv2.INTER_AREA
            )
            allowed = (cv2.dilate(moving, np.ones((5, 5), np.uint8)) == 0).astype(np.uint8)
        uv, size, descriptor = detect(np.asarray(gray), mask=allowed)
        sigma = 0.5 * np.maximum(1.0, size / 4.0) / camera.fx
        return Features(frame.index, uv, normalise(camera, uv), sigma, descriptor, np.full(len(uv), -1))

    @property
    def _pixel(self) -> float:
        """One pixel in normalised coordinates."""
        assert self._camera is not None
        return 1.0 / self._camera.fx

    # ---- before there is a map --------------------------------------------------------------------------------------

    def _before_map(self, frame: Frame, features: Features) -> PosePrior:
        new = _Waiting(features, np.eye(4), frame.T_map_cam, frame.depth_m)
        if not self._waiting:
            if len(features.uv_px) >= MIN_INLIERS:
                self._waiting.append(new)
                return PosePrior(self._pose.copy(), PoseStatus.OK, Scale.UNKNOWN)
            return self._missing()
        for reference in (self._waiting[0], self._waiting[-1]):
            i, j = match(reference.features.descriptor, features.descriptor)
            if len(i) >= 2 * MIN_INLIERS:
                break
        else:
            self._waiting = self._waiting[-INIT_BUFFER:]
            return self._missing()
        if reference is not self._waiting[0]:  # the first view is out of sight: later ones must do
            self._waiting = self._waiting[len(self._waiting) // 2 :]
        a, b = reference.features.xy[i], features.xy[j]
        R, turning = rotation_between(a, b, 2 * self._pixel, self._rng)
        still = np.median(np.linalg.norm(a - b, axis=-1)) < 0.4 * self._pixel
        relative = np.eye(4) if still else pose_matrix(R.T, np.zeros(3))  # T_reference_cam
        new.T_map_cam = reference.T_map_cam @ relative
        if turning.sum() < MIN_INLIERS:
            new.T_map_cam = self._pose.copy()
        self._set_pose(new.T_map_cam)
        self._waiting.append(new)
        if len(self._waiting) > INIT_BUFFER:
            del self._waiting[len(self._waiting) // 2 if turning.mean() > 0.9 else 0]
        if self._may_have_scale() and self._initialise():
            return PosePrior(self._pose.copy(), PoseStatus.OK, self._scale)
        self.lost_for = 0
        return PosePrior(self._pose.copy(), PoseStatus.OK, Scale.UNKNOWN, sigma_rad=float(self._pixel))

    def _may_have_scale(self) -> bool:
        """Whether a map made now could be metric, or nothing promises that. A depth camera may start after the other
        one: without its first frame the map would have a unit of its own, which depth contradicts ever after.
        """
        promised = self._config.depth.source == "topic" and len(self._waiting) < INIT_BUFFER
        return not promised or any(item.depth_m is not None for item in self._waiting)

    def _initialise(self) -> bool:
        """Tries the newest frame with the oldest that still sees the same things."""
        newest = self._waiting[-1].features
        for start, first in enumerate(self._waiting[:-1:3]):
            i, j = match(first.features.descriptor, newest.descriptor)
            if len(i) < INIT_POINTS:
                continue
            a, b = first.features.xy[i], newest.xy[j]
            _, turning = rotation_between(a, b, 1.5 * self._pixel, self._rng)
            if turning.mean() > 0.75:
                continue
            found = two_view(a, b, self._pixel)
            if found is None:
                continue
            parallax = float(np.median(found.parallax_rad[found.inliers]))
            clear = parallax / max(found.noise, 1e-9)
            if not (
                (parallax > INIT_PARALLAX and clear > INIT_CLEAR) or (parallax > SHARP_PARALLAX and clear > SHARP_CLEAR)
            ):
                continue
            # leaving out the far ones would bend the map; mismatches that lie before the lens would pin the camera down
            good = found.inliers & (found.parallax_rad > 4 * found.noise) & (found.parallax_rad < 8 * parallax)
            if good.sum() < INIT_POINTS or good.mean() < 0.4:
                continue
            self._build(self._waiting[3 * start :], found.T_b_a, found.xyz_a[good], i[good], j[good])
            return True
        return False

    def _build(self, frames: list[_Waiting], T_b_a: FloatArray, xyz_a: FloatArray, i: IntArray, j: IntArray) -> None:
        """The first map: points of two views, the frames between by PnP, everything adjusted, the scale fixed."""
        first, last = frames[0], frames[-1]
        depth = np.median(xyz_a[:, 2])
        T_b_a = T_b_a.copy()
        T_b_a[:3, 3] *= UNSCALED_DISTANCE / depth
        xyz_a = xyz_a * (UNSCALED_DISTANCE / depth)
        world = SparseMap()
        T_map_first = first.T_map_cam
        xyz = transform_points(T_map_first, xyz_a)
        rows = world.add(xyz, first.features.descriptor[i])
        first.features.point[i], last.features.point[j] = rows, rows
        key_a = Keyframe(first.features, inverse_pose(T_map_first))
        key_b = Keyframe(last.features, T_b_a @ inverse_pose(T_map_first))
        world.keyframes = [key_a, key_b]
        world.adjust(iterations=15)
        between = []
        guess = key_a.T_cam_map
        for item in frames[1:-1]:
            placed = self._place(world, item.features, guess, radius=None)
            if placed is None:
                continue
            guess = placed
            between.append(Keyframe(item.features, placed))
        step = max(1, len(between) // 5)
        world.keyframes = [key_a, *between[::step], key_b]
        for keyframe in world.keyframes[1:]:
            world.grow(keyframe, neighbours=len(world.keyframes))
        world.adjust(window=len(world.keyframes), iterations=15)
        placed_frames = {k.features.index: k for k in [*between, *world.keyframes]}
        for keyframe in placed_frames.values():  # those left out of the adjustment follow it
            again = self._place(world, keyframe.features, keyframe.T_cam_map, radius=6.0)
            if again is not None and keyframe not in world.keyframes:
                keyframe.T_cam_map = again
        T_of = {index: inverse_pose(k.T_cam_map) for index, k in placed_frames.items()}
        cues = ScaleCues(self._config.pose.known_height, self._config.pose.known_distance)
        for item in frames:
            if item.features.index in T_of:
                cues.see(T_of[item.features.index], item.given, self._depths(world, item, T_of))
        factor, self.cue = cues.factor(world.xyz[world.alive], T_map_first)
        self._scale = Scale.METRIC if self.cue else Scale.RELATIVE
        centre = T_map_first[:3, 3]
        assert np.allclose(centre, 0), "rotation-only poses stand at the origin"
        world.rescale(factor)
        for index, T in T_of.items():
            T = T.copy()
            T[:3, 3] *= factor
            self._revised[index] = T
        self._map = world
        self._waiting.clear()
        self._velocity = np.eye(4)
        self._pose = inverse_pose(key_b.T_cam_map)
        self._tracked_at_keyframe = int((key_b.features.point >= 0).sum())
        self._since_keyframe = 0
        self.lost_for = 0

    def _depths(self, world: SparseMap, item: _Waiting, T_of: dict[int, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Depths of the map points in a frame, and the given metric depths there: (N,) each."""
        seen = np.flatnonzero(item.features.point >= 0)
        if item.depth_m is None or len(seen) == 0:
            return np.zeros(0), np.zeros(0)
        _, depth = reproject(inverse_pose(T_of[item.features.index]), world.xyz[item.features.point[seen]])
        assert self._camera is not None
        scale = np.array(item.depth_m.shape[::-1]) / np.array([self._camera.width, self._camera.height])
        uv = ((item.features.uv_px[seen] + 0.5) * scale).astype(int)
        given = item.depth_m[uv[:, 1].clip(0, item.depth_m.shape[0] - 1), uv[:, 0].clip(0, item.depth_m.shape[1] - 1)]
        valid = np.isfinite(given) & (given > 0) & (depth > 0)
        return depth[valid], given[valid].astype(float)

    # ---- with a map -------------------------------------------------------------------------------------------------

    def _track(self, features: Features) -> PosePrior:
        assert self._map is not None
        guess = self._velocity @ inverse_pose(self._pose)
        T = None
        if self.lost_for == 0:
            T = self._place(self._map, features, guess, radius=40.0)
        if T is None and (self.lost_for < SEARCH_EAGERLY or self.lost_for % SEARCH_EVERY == 0):
            T = self._place(self._map, features, None, radius=None)
        if T is None:
            return self._missing()
        seen = features.point >= 0
        points = self._map.xyz[features.point[seen]]
        _, covariance, _ = refine_pose(T, points, features.xy[seen], features.sigma[seen], 2)
        self._set_pose(inverse_pose(T))
        self.lost_for = 0
        self._since_keyframe += 1
        self._maybe_keyframe(features, T)
        sigma = np.sqrt(np.diag(covariance))
        sigma_m, sigma_rad = float(np.linalg.norm(sigma[:3])), float(np.linalg.norm(sigma[3:]))
        return PosePrior(self._pose.copy(), PoseStatus.OK, self._scale, sigma_m, sigma_rad)

    def _place(
        self, world: SparseMap, features: Features, guess: FloatArray | None, radius: float | None
    ) -> FloatArray | None:
        """T_cam_map of a frame by PnP, and `features.point` set to what it sees; None when too little agrees.

        With a `radius` (px) points are only looked for near where `guess` projects them.
        """
        alive = np.flatnonzero(world.alive)
        gate, near = None, alive
        if guess is not None and radius is not None:
            seen, depth = reproject(guess, world.xyz[alive])
            limit = np.abs(features.xy).max(0) + radius * self._pixel if len(features.xy) else np.zeros(2)
            near = alive[(depth > 0) & (np.abs(seen) < limit).all(1)]
            seen, _ = reproject(guess, world.xyz[near])
            gate = _within(seen, features.xy, radius * self._pixel)
        i, j = match(world.descriptor[near], features.descriptor, gate, ratio=0.9 if gate is not None else 0.8)
        found = solve_pose(world.xyz[near[i]], features.xy[j], 3 * self._pixel, guess)
        if found is None or found[1].sum() < MIN_INLIERS or found[1].sum() < 0.25 * len(i):
            return None
        T, inliers = found
        for reach in (6.0, 3.0):  # look again, closer
            seen, depth = reproject(T, world.xyz[alive])
            limit = np.abs(features.xy).max(0) + 2 * self._pixel
            near = alive[(depth > 0) & (np.abs(seen) < limit).all(1)]
            seen, _ = reproject(T, world.xyz[near])
            i, j = match_near(world.descriptor[near], seen, features.descriptor, features.xy, reach * self._pixel)
            if len(i) < MIN_INLIERS:
                return None
            # points on moving things live short: young ones weigh less until they have proved that they stand still
            sigma = features.sigma[j] * np.where(world.seen[near[i]] < PROVEN, 2.5, 1.0)
            T, _, _ = refine_pose(T, world.xyz[near[i]], features.xy[j], sigma)
            error = np.linalg.norm(reproject(T, world.xyz[near[i]])[0] - features.xy[j], axis=-1) / features.sigma[j]
            inliers = error < 3.5
        if inliers.sum() < MIN_INLIERS:
            return None
        features.point[:] = -1
        features.point[j[inliers]] = near[i[inliers]]
        world.count(near, near[i[inliers]])
        return T

    def _maybe_keyframe(self, features: Features, T_cam_map: FloatArray) -> None:
        assert self._map is not None
        world = self._map
        tracked = int((features.point >= 0).sum())
        if not world.keyframes:  # the map was saved, and the camera has just been found in it
            world.keyframes.append(Keyframe(features, T_cam_map))
            self._tracked_at_keyframe = tracked
            return
        last = world.keyframes[-1]
        shared = np.intersect1d(features.point[features.point >= 0], last.features.point)
        few = len(shared) < 0.75 * self._tracked_at_keyframe or tracked < 80
        seen = world.xyz[features.point[features.point >= 0]]
        depth = np.median(reproject(T_cam_map, seen)[1])
        step = np.linalg.norm(inverse_pose(T_cam_map)[:3, 3] - inverse_pose(last.T_cam_map)[:3, 3])
        if not few and step < 0.08 * depth:
            return
        keyframe = Keyframe(features, T_cam_map)
        world.keyframes.append(keyframe)
        world.grow(keyframe)
        world.adjust()
        world.cull()
        world.trim(KEYFRAMES)
        self._pose = inverse_pose(keyframe.T_cam_map)
        self._tracked_at_keyframe = int((features.point >= 0).sum())
        self._since_keyframe = 0

    def _note_where(self, features: Features) -> None:
        """Counts the frames that have no pose although they show something, and go on showing it."""
        if self.lost_for == 0:
            self._elsewhere, self._unplaced = 0, None
            return
        before, self._unplaced = self._unplaced, features
        if before is not None and len(match(before.descriptor, features.descriptor)[0]) >= 2 * MIN_INLIERS:
            self._elsewhere += 1

    # ---- both -------------------------------------------------------------------------------------------------------

    def _set_pose(self, T_map_cam: FloatArray) -> None:
        step = inverse_pose(T_map_cam) @ self._pose
        self._velocity = step if self.lost_for == 0 else np.eye(4)
        self._pose = T_map_cam

    def _missing(self) -> PosePrior:
        """No pose was measured: predict over a short gap, then say that it is lost."""
        self.lost_for += 1
        if self.lost_for <= self._config.pose.bridge:
            if self._map is not None:
                self._pose = inverse_pose(self._velocity @ inverse_pose(self._pose))
            return PosePrior(self._pose.copy(), PoseStatus.PREDICTED, self._scale, sigma_rad=0.05 * self.lost_for)
        return PosePrior(self._pose.copy(), PoseStatus.LOST, self._scale, sigma_m=float("inf"), sigma_rad=float("inf"))


def _within(a: FloatArray, b: FloatArray, radius: float) -> BoolArray:
    """(N, M) which of the points (N, 2) and (M, 2) are less than `radius` apart."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    square = (a[:, None, 0] - b[None, :, 0]) ** 2 + (a[:, None, 1] - b[None, :, 1]) ** 2
    return np.asarray(square < radius**2)
