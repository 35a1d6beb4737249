"""Whether more traces would help: a forecast with a range, wherever there are 500 rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.report.conftest import Case, blobs, case_of, make_task
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.forecast import RefitCurve, forecast_of
from tracer_serve.report.learning_curve import plateau_of
from tracer_serve.report.render import render_html

SIZES = np.array([62.0, 125.0, 250.0])


@pytest.mark.parametrize(
    ("gate", "spread"),
    [
        ({"alpha": 0.9, "protect": {"label_00": 0.7}}, 1.0),
        ({"alpha": 0.9, "per_class": True}, 0.5),
        ({"alpha": 0.99}, 3.0),
        ({"alpha": 0.9, "guarantee": "overall"}, 1.0),
        ({"alpha": 0.9, "mode": "strict"}, 0.9),
    ],
    ids=["protect", "per class", "hopeless", "overall", "strict"],
)
def test_every_promise_has_a_forecast_with_a_range(gate: dict[str, Any], spread: float) -> None:
    """Also where refits cannot test the promise, or nothing is certified; the page says which it is."""
    rows = 1300 if "mode" in gate else 500
    texts, labels, vectors = blobs(rows, 4, seed=0, spread=spread, width=8)
    report = case_of(make_task(gate=gate), texts, labels, vectors, np.arange(0)).report
    ahead = report["plateau"]["forecast"]
    assert 0.0 <= ahead["low"] <= ahead["coverage"] <= ahead["high"] <= 1.0
    assert ahead["traces"] == 2 * rows
    assert ahead["low"] <= report["headline"]["coverage"]
    page = render_html(report)
    assert "may handle about" in page or "not a certified one" in page


def test_a_heavy_surrogate_is_forecast_by_a_cheap_one(small: Case) -> None:
    """Its refits would take minutes, so logistic regression on the same vectors shows the growth, and is named."""
    stage = small.fitted.policy.stages[-1]
    heavy = type("Heavy", (type(stage.surrogate),), {"cost": 100.0})()
    heavy.__dict__.update(stage.surrogate.__dict__)
    policy = replace(small.fitted.policy, stages=(replace(stage, surrogate=heavy),))
    seen = CalibrationView.of(small.task, small.fitted, small.texts)
    found = plateau_of(small.task, replace(small.fitted, policy=policy), seen)
    assert found["method"].startswith("Logistic regression is refitted")
    assert found["forecast"]["basis"] in ("refits", "reach")
    assert {point["measured"] for point in found["points"]} == {"refit"}


def test_without_any_growth_to_measure_the_range_is_an_assumption() -> None:
    """Where no size reaches alpha, from no growth to that of the square root; three sizes are needed for either."""
    nothing = RefitCurve(SIZES, np.zeros(3), np.zeros(3))
    found = forecast_of(nothing, 0.0, 0.0, 500, 500)
    assert found is not None
    assert (found["basis"], found["low"], found["coverage"]) == ("none", 0.0, 0.0)
    assert found["high"] == pytest.approx(1 - 2**-0.5)
    assert forecast_of(RefitCurve(SIZES[:2], np.ones(2) / 2, np.ones(2) / 2), 0.5, 0.5, None, 300) is None


def test_full_coverage_cannot_grow() -> None:
    """A version that handles everything is forecast to go on, not to lose coverage."""
    found = forecast_of(RefitCurve(SIZES, np.ones(3), np.ones(3)), 1.0, 1.0, 500, 500)
    assert found is not None
    assert (found["coverage"], found["low"], found["high"], found["basis"]) == (1.0, 1.0, 1.0, "reach")
