"""Frames on their way in: numbered, brought to working size, and shown to the 2D sources."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.fit.frontend.object_count import ObjectCount
from motion4d_ros.fit.frontend.still_ground_check import StillGroundCheck
from motion4d_ros.fit.semantics.mask_fusion import Fused, MaskFusion
from motion4d_ros.fit.window.horizon import FrameState, Horizon, inverted
from motion4d_ros.fit.window.scene_scale import SceneScale
from motion4d_ros.fit.window.yield_point import YieldPoint
from motion4d_ros.geometry.label_images import PackedLabels, labels_in, resize_labels
from motion4d_ros.imagery.conversions import LARGEST_ID
from motion4d_ros.priors.guarded import trouble_now
from motion4d_ros.priors.interfaces import (
    DepthPrior,
    GetsStranded,
    HearsOfPoses,
    LooksAhead,
    LooksFirst,
    PosePrior,
    RevisesDepth,
    RevisesMasks,
    RevisesPoses,
    SceneHint,
)
from motion4d_ros.priors.registry import (
    make_depth_source,
    make_detection_source,
    make_mask_source,
    make_pose_source,
    make_track_source,
)
from motion4d_ros.types import (
    CAMERA_CHANGED,
    CLOCK_JUMPED,
    UNSCALED_DISTANCE,
    Camera,
    FloatArray,
    Frame,
    IntArray,
    Motion4DError,
    PoseStatus,
    Prompt,
    Scale,
)

FLAT_SIGMA = 1.0
MIN_HELD = 4  # frames at the input's size, as many as mask sources keep for corrections


class Intake:
    """The 2D sources and the frames that wait for their window."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.poses = make_pose_source(config)
        self.depths = make_depth_source(config)
        self.masks = make_mask_source(config)
        self.detector = make_detection_source(config)
        self.tracks = make_track_source(config)
        self.watch = StillGroundCheck(config)
        self.pending: list[FrameState] = []
        self.predicted: IntArray | None = None  # (H, W) labels of the newest frame, as far as the scene knows them
        self.live: Fused | None = None  # what is told about the newest frame, at the input's size
        self.fusion = MaskFusion(config.masks)
        self._recent: deque[FrameState] = deque(maxlen=self.fusion.reach + 1)  # the newest frames, oldest first
        self.seconds = 0.0
        self.scale = Scale.UNKNOWN
        self.pose_status = PoseStatus.OK
        self._lengths = SceneScale(config)
        self.known_ids: set[int] = set()
        self.count = ObjectCount(config.objects.most, config.window.horizon)
        self.used_up = False  # whether a source has run out of object ids
        self._deleted: set[int] = set()
        self._whole: deque[FrameState] = deque()  # frames still held at the input's size, oldest first
        self._last: FrameState | None = None
        self._revised_poses: dict[int, FloatArray] = {}
        self._guessed: set[int] = set()  # frames whose depth was a guess, for want of the camera's motion
        self._found_motion = False  # since the last window, after frames without it
        self.newest_ns = 0  # stamp of the newest frame seen, taken or not
        self.before: FrameState | None = None  # the frame taken before the newest
        self._next_index = 0

    @property
    def newest(self) -> FrameState | None:
        """The newest frame taken since the start of the scene."""
        return self._last

    @property
    def newest_index(self) -> int:
        """Index of the newest frame taken; -1 before the first."""
        return self._next_index - 1

    # -- frames --------------------------------------------------------------------------------------------------------

    def reason_to_restart(self, frame: Frame) -> str:
        """Why `frame` cannot continue the scene; empty if it can. Raises `Motion4DError` for a stamp that stands
        still.
        """
        if self._last is None:
            return ""
        if frame.stamp_ns == self.newest_ns:
            raise Motion4DError(f"two frames with the same stamp {frame.stamp_ns}: the second is ignored")
        if frame.stamp_ns < self.newest_ns:
            return CLOCK_JUMPED
        if not frame.camera.is_like(self._last.output_camera):
            return CAMERA_CHANGED
        return ""

    def admit(self, frame: Frame) -> None:
        """Counts the objects that `frame` names, and lets those out of sight longest go where there are too many: who
        follows an object keeps pictures of it. Raises `Motion4DError` if the frame alone brings too many.
        """
        self.count.frame(frame.masks)
        for object_id in self.count.surplus():
            if self._last is not None and self.config.masks.source not in ("topic", "none"):
                with contextlib.suppress(Motion4DError):  # said already, by whoever guards the source
                    gone = Prompt(self._last.frame.stamp_ns, object_id, delete=True)
                    self.masks.prompt(self._last.shown_to(self.masks), gone)

    @property
    def stranded(self) -> bool:
        """Whether the pose source has lost the camera and hardly finds it again in this scene."""
        return isinstance(self.poses, GetsStranded) and self.poses.stranded

    def take(self, frame: Frame) -> FrameState:
        """Asks every source about the frame and appends it to `pending`."""
        started = time.perf_counter()
        whole = frame.with_index(self._next_index)
        if self._last is not None:  # intrinsics flicker where lenses adjust themselves: the first ones hold
            whole = replace(whole, camera=self._last.output_camera)
        if self.detector is not None and whole.detections is None:
            whole = replace(whole, detections=self.detector.detections(whole))
        frame = shrink(whole, self.config.budget.working_width)
        self._next_index += 1
        hint = self._hint(frame)
        pose = self.poses.pose(whole, hint)  # features are found more sharply in the whole picture
        self._take_revised_poses(pose)
        self._lengths.hear_pose(pose)
        depth = self.depths.depth(frame, pose, hint)
        self._lengths.hear_depth(depth)
        if isinstance(self.masks, LooksFirst):
            self.masks.look(whole, pose, depth)
        labels = self._clean(self._ask_masks(whole if self.masks.full_size else frame, hint))
        state = self._state(frame, whole.camera, pose, depth, labels)
        state.warnings += trouble_now(self.depths, self.masks, self.detector)
        if self.used_up:
            state.warnings.append(f"all {LARGEST_ID} object ids are used up: start anew to see new objects")
        self._hold(state, whole)
        if self.fusion.size_for(whole.camera.size) != frame.camera.size:
            state.guide = shrink_image(whole.image, self.fusion.size_for(whole.camera.size))
        self.tracks.push(frame, state.raw_labels)
        self.watch.look(state, self._last, self.tracks)
        self._predict(state)
        self.pending.append(state)
        self.before, self._last, self.newest_ns = self._last, state, frame.stamp_ns
        self.scale, self.pose_status = state.scale, state.pose_status
        self.seconds += time.perf_counter() - started
        return state

    def begin_after(self, ids: set[int]) -> None:
        """Object ids that were given elsewhere are not given again."""
        self.known_ids |= ids
        self.masks.begin_after(max([0, *ids]))

    def close_window(self) -> list[FrameState]:
        """Hands over the frames that waited, one window at most."""
        length = self.config.window.length
        closed, self.pending = self.pending[:length], self.pending[length:]
        return closed

    def finish(self) -> None:
        """The input ends: sources that look ahead say what they can of the last frames."""
        if isinstance(self.masks, LooksAhead):
            self.masks.finish()

    def adopt_revised_poses(self, horizon: Horizon) -> bool:
        """Takes over poses of earlier frames that their source has changed its mind about; whether the camera's motion
        has only now become known, and frames of the horizon were fitted without it.
        """
        revised, self._revised_poses = self._revised_poses, {}
        for state in [*horizon.frames, *self.pending]:
            if state.index in revised:
                state.T_map_cam = revised[state.index]
                if self._found_motion:
                    self._guessed.add(state.index)
        self._settle(horizon)
        self.watch.mark([*horizon.frames, *self.pending])
        fitted_blindly = self._found_motion and any(state.index in revised for state in horizon.frames)
        self._found_motion = False
        return fitted_blindly

    def _take_revised_poses(self, pose: PosePrior) -> None:
        """Keeps what the pose source has revised; tells a depth source that lives by poses once they have a scale."""
        revised = self.poses.revised_poses() if isinstance(self.poses, RevisesPoses) else {}
        self._revised_poses.update(revised)
        if not revised or pose.scale is Scale.UNKNOWN:
            return
        if isinstance(self.masks, HearsOfPoses):
            self.masks.revise_poses(revised)
        if self._last is not None and self._lengths.pose is Scale.UNKNOWN:
            self._found_motion = True
            if isinstance(self.depths, RevisesDepth):
                self.depths.revise(revised)

    def adopt_revised_masks(self, horizon: Horizon) -> int | None:
        """Takes over masks of earlier frames that their source has changed its mind about; the first such frame."""
        revised = self.masks.revised_masks() if isinstance(self.masks, RevisesMasks) else {}
        changed = [state for state in [*horizon.frames, *self.pending] if state.index in revised]
        for state in changed:
            state.adopt(self._clean(revised[state.index]))
        if changed:
            self.look_again()
        return changed[0].index if changed else None

    def measure_again(self, horizon: Horizon, yield_point: YieldPoint | None = None) -> None:
        """Replaces guesses of depth by what can be measured since the camera's motion is known. Masks first."""
        if isinstance(self.depths, RevisesDepth):
            for state in [*horizon.frames, *self.pending]:
                if state.index in self._guessed:
                    if yield_point is not None:
                        yield_point()
                    found = self.depths.again(state.frame, state.T_map_cam, self._lengths.pose, state.raw_labels)
                    if found is not None:
                        state.believe_depth(found.depth, found.sigma)
                        self._lengths.hear_depth(found)
        self._settle(horizon)
        self._guessed.clear()

    def _settle(self, horizon: Horizon) -> None:
        """Says of frames that came before the camera's motion was known what lengths mean by all that is known now."""
        states = [state for state in [*horizon.frames, *self.pending] if state.index in self._guessed]
        for state in states:
            before, state.scale = state.scale, self._lengths.now
            if state.affine and before is Scale.METRIC and state.scale is Scale.RELATIVE:
                state.loose = True  # metres that are to be brought to the units of the map
        self.watch.mark(states)

    def forget_before(self, index: int) -> None:
        """Lets the sources drop what is older than frame `index`."""
        self.tracks.forget_before(index)
        while self._recent and self._recent[0].index < index:
            self._recent.popleft()

    def reset(self) -> None:
        """Forgets everything but the counters of frames and objects."""
        for source in (self.poses, self.depths, self.masks, self.tracks):
            source.reset()
        self.watch.reset()
        self.count.forget()
        self.pending = []
        self.predicted = self.live = None
        self._last = self.before = None
        self._whole.clear()
        self._deleted.clear()
        self._guessed.clear()
        self._recent.clear()
        self.fusion.reset()
        self._lengths.reset()
        self.scale, self.pose_status = Scale.UNKNOWN, PoseStatus.OK

    # -- prompts -------------------------------------------------------------------------------------------------------

    def prompt(self, prompt: Prompt, horizon: Horizon) -> int:
        """Passes a user's word on to the mask source; the object's id."""
        state = self._find(prompt, horizon)
        if prompt.delete and prompt.object_id == 0:
            raise Motion4DError("deleting needs the id of the object")
        if prompt.delete and prompt.object_id not in self.known_ids:
            raise Motion4DError(f"prompt: there is no object {prompt.object_id} to remove")
        object_id = prompt.object_id if prompt.delete else self.count.prompt(prompt.object_id, self.known_ids)
        self.known_ids.add(object_id)
        if prompt.delete:
            self._deleted.add(object_id)
            for other in [*horizon.frames, *self.pending]:
                known = other.source_labels()
                other.adopt(np.where(known == object_id, 0, known).astype(np.int32))
                other.labels = np.where(other.labels == object_id, 0, other.labels)
                other.forget(object_id)
            self.look_again()
        shown = state.shown_to(self.masks)
        scaled = _sized_prompt(prompt, state, shown.camera, object_id)
        self.masks.prompt(shown, scaled)
        if scaled.mask is not None and not prompt.delete:
            known = resize_labels(state.source_labels(), shown.camera.size)
            blank = np.where(known == object_id, 0, np.maximum(known, 0))
            state.adopt(np.where(scaled.mask, object_id, blank).astype(np.int32))
            self.look_again()
        else:
            self.adopt_revised_masks(horizon)
        return object_id

    def _find(self, prompt: Prompt, horizon: Horizon) -> FrameState:
        states = [*horizon.frames, *self.pending]
        if not states:
            raise Motion4DError("a prompt came before the first frame")
        nearest = min(states, key=lambda state: abs(state.frame.stamp_ns - prompt.stamp_ns))
        if prompt.stamp_ns < states[0].frame.stamp_ns and nearest.frame.stamp_ns != prompt.stamp_ns and prompt.stamp_ns:
            raise Motion4DError(
                f"prompt for stamp {prompt.stamp_ns}: that frame has left the horizon; prompt a newer frame"
            )
        return states[-1] if prompt.stamp_ns == 0 else nearest

    # -- one frame -----------------------------------------------------------------------------------------------------

    def _state(
        self, frame: Frame, output_camera: Camera, pose: PosePrior, depth: DepthPrior | None, labels: IntArray
    ) -> FrameState:
        warnings = []
        if depth is None:
            flat = self.config.depth.source == "none"
            value = 1.0 / UNSCALED_DISTANCE if flat else np.nan
            inverse: NDArray[np.float32] = np.full(frame.camera.size, value, np.float32)
            sigma: NDArray[np.float32] = np.full(frame.camera.size, FLAT_SIGMA, np.float32)
            warnings.append("no depth: a flat scene is assumed" if flat else "frame without depth")
        else:
            inverse = inverted(depth.depth)
            sigma = depth.sigma
        if pose.status is PoseStatus.LOST:
            warnings.append("camera pose lost")
        depth_m = inverted(inverse)
        small, scale = resize_labels(labels, frame.camera.size), self._lengths.now
        state = FrameState(
            frame, output_camera, pose.T_map_cam, pose.status, scale, small, inverse, sigma, small, depth_m, warnings
        )
        state.keep_outlines(labels)
        state.holds_names = self.config.masks.source != "topic"
        state.affine = depth is not None and depth.affine
        state.loose = state.affine and not (self._lengths.own_metres and scale is Scale.METRIC)
        state.sensed, state.own_metres = self._lengths.sensed, self._lengths.own_metres
        return state

    def _ask_masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) labels of the mask source at the size of `frame`; the hint is brought to that size."""
        if hint is not None and hint.masks is not None and hint.masks.shape != frame.camera.size:
            masks = resize_labels(hint.masks, frame.camera.size)
            hint = replace(hint, depth_m=None, masks=masks, flow_px=None)
        return self.masks.masks(frame, hint)

    def _hold(self, state: FrameState, whole: Frame) -> None:
        """Keeps the input image of the newest frames, about which the mask source may be asked again."""
        if not self.masks.full_size:
            return
        state.whole = whole
        self._whole.append(state)
        while len(self._whole) > max(MIN_HELD, 2 * self.config.window.length):
            self._whole.popleft().whole = None

    def _clean(self, labels: IntArray) -> IntArray:
        """Labels as int32, without deleted objects; remembers the ids."""
        labels = labels.astype(np.int32)
        ids = labels_in(labels)
        if ids[-1] > LARGEST_ID:  # published they would be other objects, or none
            labels, ids = np.where(labels > LARGEST_ID, 0, labels), ids[ids <= LARGEST_ID]
            self.used_up = True
        self.known_ids.update(int(v) for v in ids if v > 0)
        for deleted in self._deleted & set(ids.tolist()):
            labels = np.where(labels == deleted, 0, labels)
        self.count.shown(set(ids[ids > 0].tolist()) - self._deleted)
        return labels

    def _hint(self, frame: Frame) -> SceneHint | None:
        """The last frame's pose and labels: what is known before anything was asked about this frame."""
        if self._last is None:
            return None
        return SceneHint(self._last.T_map_cam, None, self.predicted, None)

    def _predict(self, state: FrameState) -> None:
        """Labels of a new frame by its source and by what is known of the frames before."""
        if self._recent and self._recent[-1].index != state.index - 1:
            self._recent.clear()
        self._recent.append(state)
        self.look_again()

    def look_again(self) -> None:
        """Tells the labels of the newest frame anew: what is known of it, or of the frames before, has changed."""
        if not self._recent:
            return
        newest = self._recent[-1]
        self.live = self.fusion.fuse_newest(list(self._recent), self.tracks.flows)
        newest.published = PackedLabels.pack(self.live.labels)  # by which the next one is judged
        self.predicted = np.maximum(resize_labels(self.live.labels, newest.frame.camera.size), 0)

    @property
    def recent(self) -> list[FrameState]:
        """The newest frames taken, oldest first."""
        return list(self._recent)


def shrink(frame: Frame, width: int) -> Frame:
    """The frame at a working width of at most `width` px (0 = never shrink): image and labels by area, depth by
    picking (no depth between two surfaces).
    """
    if width == 0 or frame.camera.width <= width:
        return frame
    camera = frame.camera.scaled(width / frame.camera.width)
    size = (camera.width, camera.height)
    image = np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    depth = None if frame.depth_m is None else cv2.resize(frame.depth_m, size, interpolation=cv2.INTER_NEAREST_EXACT)
    masks = None if frame.masks is None else resize_labels(frame.masks, camera.size)
    x, y = camera.width / frame.camera.width, camera.height / frame.camera.height
    detections = None if frame.detections is None else tuple(each.scaled(x, y) for each in frame.detections)
    return Frame(frame.stamp_ns, image, camera, frame.T_map_cam, depth, masks, frame.frame_id, frame.index, detections)


def shrink_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) image at a smaller `size` (height, width), by area."""
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _sized_prompt(prompt: Prompt, state: FrameState, camera: Camera, object_id: int) -> Prompt:
    """The prompt in pixels of `camera` (the working one or the input's), with its id."""
    output = state.output_camera
    ratio = np.array([camera.width / output.width, camera.height / output.height])
    mask = prompt.mask
    if mask is not None and mask.shape != camera.size:
        if mask.shape not in (output.size, state.frame.camera.size):
            raise Motion4DError(f"prompt mask has shape {mask.shape}, its image {output.size}")
        mask = resize_labels(mask.astype(np.int32), camera.size) > 0
    box = None if prompt.box_px is None else (prompt.box_px + 0.5) * np.tile(ratio, 2) - 0.5
    points = (prompt.points_px.reshape(-1, 2) + 0.5) * ratio - 0.5
    if prompt.xyz_map is not None and len(points) == 0:  # a click in 3D is a point on the object where it projects
        T = state.T_cam_map
        uv = camera.project(T[:3, :3] @ prompt.xyz_map + T[:3, 3])
        inside = np.isfinite(uv).all() and (uv >= 0).all() and uv[0] < camera.width and uv[1] < camera.height
        if not inside:
            raise Motion4DError("the clicked point is outside the camera's view at that time")
        points = uv[None]
    positive = prompt.positive if len(prompt.positive) == len(points) else np.ones(len(points), bool)
    return Prompt(prompt.stamp_ns, object_id, points, positive, box, mask, prompt.xyz_map, prompt.name, prompt.delete)
