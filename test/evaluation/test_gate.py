"""The accuracy gate: it passes what it was set from, and fails for each figure that gets worse."""

import math

import pytest

from motion4d_ros.evaluation import gate
from motion4d_ros.evaluation.gate import BOUNDS, SLACK_EPE, SLACK_J, Bound, main

BOUND = Bound(J=0.9, EPE_m=0.01, flips=1)


def test_what_was_measured_holds():
    assert BOUND.failures({"J": 0.9, "EPE": 0.01, "flips": 1}) == []


@pytest.mark.parametrize(
    ("figure", "value", "word"),
    [
        ("J", 0.9 - SLACK_J - 1e-3, "J"),
        ("J", math.nan, "J"),
        ("EPE", 0.01 * (1 + SLACK_EPE) + 1e-4, "EPE"),
        ("EPE", math.nan, "EPE"),
        ("flips", 2, "flips"),
    ],
)
def test_each_figure_that_gets_worse_fails(figure, value, word):
    failures = BOUND.failures({"J": 0.9, "EPE": 0.01, "flips": 1, figure: value})
    assert len(failures) == 1
    assert failures[0].startswith(word)


@pytest.mark.parametrize("lost", ["J", "error"])
def test_lost_accuracy_and_failed_runs_end_with_status_one(lost, monkeypatch, capsys, tmp_path):
    def run(case, *_, **__):
        bounds = BOUNDS[case.name].items()
        scores = {name: {"J": bound.J, "EPE": bound.EPE_m, "flips": bound.flips} for name, bound in bounds}
        if case.name == next(iter(BOUNDS)) and lost == "J":
            scores["final"]["J"] -= 0.1
        return {"error": "no room" if lost == "error" else "", "scores": scores}

    monkeypatch.setattr(gate, "run_case", run)
    assert main(["--out", str(tmp_path)]) == 1
    assert "missed" in capsys.readouterr().out
