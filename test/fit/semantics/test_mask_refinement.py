"""Semantic refinement: which prompts the rendered masks make, and what becomes of the answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from fit_builders import CAMERA, UniformFlow, make_horizon, make_state
from numpy.typing import NDArray

from motion4d_ros.config import MasksConfig
from motion4d_ros.fit.optimisation.targets import make_target
from motion4d_ros.fit.optimisation.trainer import View
from motion4d_ros.fit.semantics.mask_fusion import MaskFusion
from motion4d_ros.fit.semantics.mask_refinement import MaskRefinement, points_in_regions, prompts_for
from motion4d_ros.render.output import RenderOutput
from motion4d_ros.types import UNKNOWN_LABEL, Frame, IntArray, Prompt

HEIGHT, WIDTH = CAMERA.size
CHANNEL_OF = {0: 0, 5: 1, 2: 2}


def boxed(label: int, rows: slice, columns: slice) -> NDArray[np.int32]:
    labels = np.zeros(CAMERA.size, np.int32)
    labels[rows, columns] = label
    return labels


def test_prompts_are_exact_boxes_and_signed_points() -> None:
    rendered = boxed(5, slice(10, 31), slice(12, 41))
    current = rendered.copy()
    current[16:25, 20:29] = 0  # a hole of 9 x 9 px: positive point in its middle
    current[35:42, 2:9] = 5  # a leak of 7 x 7 px: negative point in its middle
    (prompt,) = prompts_for(99, rendered, current)
    assert (prompt.stamp_ns, prompt.object_id) == (99, 5)
    assert prompt.box_px is not None and prompt.box_px.tolist() == [12, 10, 40, 30]  # inclusive
    assert prompt.points_px.tolist() == [[24, 20], [5, 38]]
    assert prompt.positive.tolist() == [True, False]
    assert prompt.mask is None  # never the rendered mask itself


def test_agreement_gives_a_box_without_points() -> None:
    rendered = boxed(5, slice(10, 20), slice(10, 20))
    (prompt,) = prompts_for(0, rendered, rendered)
    assert prompt.points_px.shape == (0, 2) and len(prompt.positive) == 0


def test_every_object_is_prompted_and_nothing_without_objects() -> None:
    rendered = boxed(5, slice(0, 9), slice(0, 9)) + boxed(2, slice(20, 30), slice(20, 30))
    assert [p.object_id for p in prompts_for(0, rendered, rendered)] == [2, 5]
    assert prompts_for(0, np.zeros(CAMERA.size, np.int32), rendered) == []


def test_points_go_to_the_largest_regions_only() -> None:
    region = np.zeros(CAMERA.size, bool)
    for x, side in ((2, 5), (12, 9), (26, 7), (40, 11), (55, 2)):
        region[5 : 5 + side, x : x + side] = True
    assert points_in_regions(region) == [(45.0, 10.0), (16.0, 9.0), (29.0, 8.0)]  # largest first, three at most
    ragged = np.zeros(CAMERA.size, bool)
    ragged[4, 5:16] = True  # 11 px
    assert points_in_regions(ragged) == []


def test_the_border_of_the_image_is_an_edge() -> None:
    region = np.zeros(CAMERA.size, bool)
    region[:9, :9] = True
    assert points_in_regions(region) == [(4.0, 4.0)]


# -- what becomes of the answer ----------------------------------------------------------------------------------------


class Network:
    """A mask source that notes its prompts and answers with `answer`."""

    def __init__(self, answer: IntArray | None, accepts_prompts: bool = True) -> None:
        self.answer, self.accepts_prompts = answer, accepts_prompts
        self.full_size = False
        self.prompts: list[Prompt] = []

    def refresh(self, frame: Frame, prompts: Sequence[Prompt]) -> IntArray | None:
        self.prompts += prompts
        return self.answer


def view_of(rendered: NDArray[np.int32], sure: float = 0.95) -> View:
    probability = torch.full((HEIGHT, WIDTH, 3), (1 - sure) / 2)
    for label, channel in CHANNEL_OF.items():
        probability[..., channel][torch.as_tensor(rendered == label)] = sure
    empty, full = torch.zeros(HEIGHT, WIDTH), torch.ones(HEIGHT, WIDTH)
    return View(
        torch.zeros(HEIGHT, WIDTH, 3), probability, empty, None, RenderOutput(probability, full, empty, torch.zeros(0))
    )


def refreshed(source: Network, current: NDArray[np.int32], view: View):
    state = make_state(0, current)
    target = make_target(state, CHANNEL_OF, torch.device("cpu"))
    tracks = UniformFlow(CAMERA.size)
    refresh = MaskRefinement(source, dict(CHANNEL_OF), MaskFusion(MasksConfig()), tracks)  # type: ignore[arg-type]
    refresh(make_horizon([state]), {0: target}, {0: view})
    return state, target


def test_fresh_masks_replace_labels_and_targets() -> None:
    current, rendered = boxed(5, slice(10, 30), slice(10, 20)), boxed(5, slice(10, 30), slice(10, 30))
    answer = boxed(5, slice(9, 31), slice(9, 31))
    network = Network(answer)
    state, target = refreshed(network, current, view_of(rendered))
    assert (state.labels == answer).all()
    assert (target.channels.numpy() == (answer == 5)).all()
    (prompt,) = network.prompts
    assert prompt.stamp_ns == state.frame.stamp_ns
    assert prompt.box_px is not None and prompt.box_px.tolist() == [10, 10, 29, 29]
    assert prompt.positive.tolist() == [True] and prompt.mask is None


def test_a_network_without_an_answer_changes_nothing() -> None:
    current = boxed(5, slice(10, 30), slice(10, 20))
    network = Network(None)
    state, target = refreshed(network, current, view_of(boxed(5, slice(10, 30), slice(10, 30))))
    assert len(network.prompts) == 1
    assert (state.labels == current).all()
    assert (target.channels.numpy() == (current == 5)).all()


def test_sources_without_prompts_are_completed_by_what_is_rendered() -> None:
    rendered = boxed(5, slice(10, 30), slice(10, 40))
    current = rendered.copy()
    current[:, 25:] = UNKNOWN_LABEL
    network = Network(None, accepts_prompts=False)
    state, target = refreshed(network, current, view_of(rendered))
    assert network.prompts == []
    known = state.labels != UNKNOWN_LABEL
    assert (state.labels[known] == rendered[known]).all() and known[12:28, 12:38].all()
    assert (target.known.numpy() > 0)[12:28, 12:38].all()
    assert (target.channels.numpy() == 1)[12:28, 12:38].all()
