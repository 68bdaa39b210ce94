"""Where everything is before a single Gaussian is rendered: depth aligned to the scene, and the motion of every object.

Per window: labels are voted, depth is aligned to the static scene, the objects' motions are continued and adjusted to
the chained tracks, points are measured again from keyframes, and all is adjusted once more. Everything is solved over
the whole horizon, warm-started, in a few Gauss-Newton steps: its cost does not grow with the length of the run.
"""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.fit.initialisation.depth_alignment import DepthAlignment
from motion4d_ros.fit.motion.object_motion import Bending, ObjectMotion, Step
from motion4d_ros.fit.motion.object_motions import ObjectMotions
from motion4d_ros.fit.semantics.identity_association import associate_identities
from motion4d_ros.fit.semantics.mask_fusion import MaskFusion
from motion4d_ros.fit.tracks.keyframes import Keyframes
from motion4d_ros.fit.tracks.point_table import PointTable, from_chains
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.fit.window.yield_point import YieldPoint
from motion4d_ros.geometry.label_images import resize_labels
from motion4d_ros.priors.interfaces import TrackSource


class Geometry:
    """Depth alignment and object motions over the horizon."""

    def __init__(self, config: Config, yield_point: YieldPoint | None = None, fusion: MaskFusion | None = None) -> None:
        self.options = config.geometry
        self._yield_point = yield_point or YieldPoint()
        self.keyframes = Keyframes(
            self.options.keyframe_spacing, self.options.keyframe_reach, self._yield_point, config.run.threads
        )
        self.alignment = DepthAlignment(self.options)
        self.fusion = fusion or MaskFusion(config.masks)
        self.tracked = ObjectMotions(
            self.options, self.keyframes, config.window.length, config.run.seed, self._yield_point, config.run.threads
        )
        self.table = PointTable.empty(0)  # the points of all keyframes, as last measured
        self._random = np.random.default_rng(config.run.seed)

    @property
    def motions(self) -> dict[int, ObjectMotion]:
        """Motion of every object, by id."""
        return self.tracked.by_id

    def update(self, horizon: Horizon, tracks: TrackSource, new: list[int], revised: int | None = None) -> None:
        """Takes in the frames `new` (indices, ascending, already at the end of the horizon).

        `revised` is the first frame whose labels have changed since, if any has.
        """
        self._forget_before(horizon.first_index)
        position = min(new[0], new[0] if revised is None else revised) - horizon.first_index
        self._label(horizon, tracks, position)
        chains = self._chains(horizon, tracks)
        self._solve(horizon, chains.joined(self.keyframes.table(horizon)))
        for index in sorted({new[-1]} if self.keyframes.count else {new[0], new[-1]}):
            self.keyframes.add(horizon.get(index))
        self._measure_again(horizon, chains)
        self.tracked.check_consistency()

    def _label(self, horizon: Horizon, tracks: TrackSource, first: int) -> None:
        """Sets the labels of frames from position `first` on, and of those before that they are neighbours of."""
        first = max(0, min(first, associate_identities(horizon, tracks)) - self.fusion.reach)
        self._yield_point()
        sure = self.fusion.sure(horizon.frames, tracks.flows, range(first, len(horizon)))
        for position, labels in sure.items():
            state = horizon.frames[position]
            state.labels = resize_labels(labels, state.frame.camera.size)

    def reconsider(self, horizon: Horizon, tracks: TrackSource, frames: Set[int]) -> None:
        """Measures all objects again, those in `frames`, whose labels have changed, with new points; adjusts all anew.

        Early measurements began from what was known then of the objects' motion and depth.
        """
        chains = self._chains(horizon, tracks)
        self.keyframes.start_again(frames, horizon)
        self.keyframes.unlink(horizon, horizon.frames[-1].index + 1, {state.index for state in horizon.frames})
        self._measure_again(horizon, chains)
        self.tracked.check_consistency()

    def relative_motions(self, start: int, end: int) -> dict[int, Step]:
        """Motion of every object between two frames, by label; 0 is the static scene."""
        motions: dict[int, Step] = {0: np.eye(4)}
        for label, motion in self.motions.items():
            motions[label] = Bending(motion, start, end) if motion.parts else motion.between(start, end)
        return motions

    def remove(self, object_id: int) -> None:
        """Forgets an object."""
        self.motions.pop(object_id, None)

    def _solve(self, horizon: Horizon, points: PointTable) -> None:
        """Aligns depth and adjusts motions to the same points."""
        self._yield_point()
        self.alignment.align(horizon, points.pick(0, self.options.static_points, self._random))
        self._yield_point()
        labels = np.unique(points.labels[points.labels > 0]).tolist()
        chosen = {label: points.pick(label, self.options.object_points, self._random) for label in labels}
        for label, table in chosen.items():
            table.hide_beside_occluders(label, horizon)
        self.tracked.update(horizon, chosen)

    def _chains(self, horizon: Horizon, tracks: TrackSource) -> PointTable:
        """What chained flow says over the horizon, with voted labels."""
        chained = tracks.tracks(horizon.first_index, horizon.frames[-1].index)
        chains = from_chains(chained, self.options.chain_drift, self.options.chain_reach)
        self._yield_point()
        chains.vote(horizon)
        return chains

    def _measure_again(self, horizon: Horizon, chains: PointTable) -> None:
        """Links keyframes to the frames to which they have not been linked, and adjusts all to what that has found."""
        self.keyframes.correct(horizon, self.relative_motions)
        self.keyframes.link(horizon, self.relative_motions)
        self._yield_point()
        self.table = self.keyframes.table(horizon)
        self._solve(horizon, self._with_fallback(self.table, chains))
        self._mend_objects(horizon)

    def _mend_objects(self, horizon: Horizon) -> None:
        """Corrects the depth on every object by what bundle adjustment found wrong with it."""
        for state in horizon.frames:
            for label, motion in self.motions.items():
                error = motion.scale_error.get(state.index, 0.0)
                if error != 0.0:
                    state.depth_m[state.labels == label] /= np.float32(np.exp(error))

    def _with_fallback(self, keyed: PointTable, chains: PointTable) -> PointTable:
        """Points of keyframes, and a few chains: they alone reach frames that no keyframe could be linked to."""
        rows = self._random.permutation(chains.count)[: chains.count // 4]
        return keyed.joined(chains.select(np.sort(rows)))

    def _forget_before(self, index: int) -> None:
        self.keyframes.forget_before(index)
        self.alignment.forget_before(index)
        self.tracked.forget_before(index)
