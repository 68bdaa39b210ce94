"""Health is a pure function of a snapshot: each rule fires when it should, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from motion4d_ros.ros.diagnostics import RULES, Level, Snapshot, assess
from motion4d_ros.ros.work.queue import Counts
from motion4d_ros.types import NO_GROUND, Health, PoseStatus, Scale

GOOD = {
    "since_activation_s": 100.0, "image_age_s": 0.1, "has_camera": True, "processed_age_s": 0.1,
    "counts": Counts(100, 98, 2), "counts_before": Counts(50, 49, 1),
    "health": Health(frames=100, windows=10, scale=Scale.METRIC),
}  # fmt: skip


def found(**changes: Any) -> dict[str, str]:
    return {finding.rule.code: finding.text for finding in assess(Snapshot(**{**GOOD, **changes}))}


def test_all_is_well() -> None:
    assert found() == {}


CASES: dict[str, dict[str, Any]] = {
    "worker_dead": {"worker_alive": False},
    "worker_restarted": {"restarts": 1},
    "no_image": {"counts": Counts(), "counts_before": Counts(), "image_age_s": float("inf")},
    "qos_mismatch": {"qos_problem": "image: RELIABILITY"},
    "image_silent": {"image_age_s": 5.0},
    "no_camera_info": {"has_camera": False},
    "no_partner": {"missing_inputs": ("/depth",)},
    "tf_missing": {"tf_problem": "TF: frame 'map' is not published"},
    "rejected": {"counts": Counts(100, 97, 2, {}, {"step": 1}), "last_rejection": "image: step 3"},
    "clock_jump": {"jump_age_s": 3.0},
    "camera_changed": {"camera_changed_age_s": 3.0},
    "misfit": {"misfits": ("masks is 32x24 px",), "misfit_age_s": 1.0},
    "prompt_refused": {"prompt_problem": "box is empty", "prompt_problem_age_s": 1.0},
    "dropped": {"counts": Counts(100, 90, 2, {"queue full": 8})},
    "sparse": {"rate_hz": 10.0, "health": Health(frames=9, windows=1, scale=Scale.METRIC, stride=12)},
    "exceptions": {"exception_age_s": 1.0, "last_exception": "frame: ValueError"},
    "source_failed": {
        "health": Health(frames=9, windows=1, scale=Scale.METRIC, trouble="masks.source=sam_onnx failed (NaN): …")
    },
    "out_of_memory": {"oom_age_s": 1.0},
    "stuck": {"processed_age_s": 30.0},
    "same_name": {"namesakes": 1},
    "wrong_type": {"wrong_types": ("/image: std_msgs/msg/String",)},
    "no_tf2": {"lacks_tf2": True},
    "unknown_parameters": {"unknown_parameters": ("windw.length",)},
    "pose_lost": {"health": Health(frames=9, windows=1, scale=Scale.METRIC, pose_status=PoseStatus.LOST)},
    "restarted": {"camera_lost_age_s": 3.0},
    "inconsistent": {
        "health": Health(frames=9, windows=1, scale=Scale.METRIC, live_inconsistent=True, live_consistency=7.0)
    },
    "no_ground": {
        "health": Health(frames=9, windows=1, scale=Scale.RELATIVE, doubt=f"{NO_GROUND}: masks are doubtful")
    },
    "scale_unknown": {"health": Health(frames=9, windows=1)},
}


@pytest.mark.parametrize("code", RULES)
def test_each_rule_fires_alone(code: str) -> None:
    assert set(found(**CASES[code])) == {code}


def test_a_partner_that_stopped_is_named_before_stamps_are_suspected() -> None:
    lost = {"counts": Counts(100, 97, 2, {"no partner": 1})}
    assert "stamps do not match" in found(**lost)["no_partner"]
    assert "nothing any more on /masks" in found(**lost, silent_inputs=("/masks",))["no_partner"]


def test_the_worst_comes_first_and_says_what_helps() -> None:
    findings = assess(Snapshot(**{**GOOD, **CASES["dropped"], **CASES["worker_dead"]}))
    assert [finding.rule.level for finding in findings] == [Level.ERROR, Level.WARN]
    assert "activate the node" in findings[0].text and "8 of 50" in findings[1].text


def test_what_happened_long_ago_is_not_told_for_ever() -> None:
    assert not found(jump_age_s=61.0, oom_age_s=61.0, exception_age_s=61.0)
    old = {"step": 3}
    assert not found(counts=Counts(100, 95, 2, {}, old), counts_before=Counts(50, 46, 1, {}, old))


def test_an_inactive_node_complains_of_nothing() -> None:
    assert not found(active=False, **CASES["worker_dead"])


def test_stamps_that_do_not_match_are_told() -> None:
    assert "stamps do not match" in found(counts=Counts(100, 97, 2, {"no partner": 1}))["no_partner"]
