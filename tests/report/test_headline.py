"""The verdict in words says what the certificate's numbers say, and no more."""

from dataclasses import replace

import numpy as np
import pytest

from tests.report.conftest import blobs, case_of, make_task
from tracer_serve.cli.commands._certificate_rows import measured_of
from tracer_serve.gate.certify import certify
from tracer_serve.gate.settings import CalibrationRows, GateSettings, Mode
from tracer_serve.gate.wording import title_of, verdict_of
from tracer_serve.report.render import render_html

TESTED = GateSettings(alpha=0.95, delta=0.05)


def test_an_average_over_all_requests_is_no_bound_of_the_handled() -> None:
    """With guarantee overall neither page nor terminal states a bound of the agreement among the handled."""
    texts, labels, vectors = blobs(600, 6, seed=0, spread=1.0, width=8)
    spec = make_task(gate={"guarantee": "overall", "alpha": 0.9})
    case = case_of(spec, texts, labels, vectors, np.arange(0))
    headline, what = case.report["headline"], case.report["whatif"]
    assert headline["certified"]
    assert headline["lower_bound"] is None
    assert set(what["lower_bound"]) == {None}
    assert "certified: at least" not in render_html(case.report)
    assert "at least" not in dict(measured_of(case.fitted.certificate))["agreement"]


def test_a_bound_per_label_is_told_as_one() -> None:
    """The least bound of several certificates holds for each with 1 - delta, not for all at once."""
    answers = np.array(["a", "b"] * 200)
    found = certify(
        CalibrationRows(np.zeros(400), np.ones(400, bool), np.ones(400), answers=answers),
        replace(TESTED, per_class=True),
    )
    assert dict(measured_of(found))["agreement"].endswith(
        "for each certified label at a confidence of 0.95 per label, proved"
    )


@pytest.mark.parametrize(("mode", "said"), [("strict", "This is proved"), ("cross_fit", "not proved")])
def test_the_verdict_says_what_supports_delta(mode: Mode, said: str) -> None:
    """A held-out test is called proved; a cross-fitted one, whose model was refitted afterwards, is not."""
    found = certify(CalibrationRows(np.zeros(100), np.ones(100, bool), np.ones(100)), replace(TESTED, mode=mode))
    assert found.basis == {"strict": "proved", "cross_fit": "empirical"}[mode]
    assert said in verdict_of(found)


@pytest.mark.parametrize(("wrong", "said"), [(3, "97 of 100 agree, too few to show"), (9, "too often, even where")])
def test_too_few_rows_are_not_called_disagreement(wrong: int, said: str) -> None:
    """More agreement than alpha that is not surely more lacks rows; only less than alpha is too much disagreement."""
    found = certify(CalibrationRows(np.zeros(100), np.arange(100) >= wrong, np.ones(100)), TESTED)
    assert not found.certified
    assert said in verdict_of(found)


def test_labels_that_all_failed_are_not_counted_as_nothing_of_nothing() -> None:
    """Where each label was tested by itself and none passed, the verdict claims no single test."""
    answers, agreed = np.array(["a", "b"] * 200), np.arange(400) % 4 > 1
    found = certify(
        CalibrationRows(np.zeros(400), agreed, np.ones(400), answers=answers), replace(TESTED, per_class=True)
    )
    assert "of 0" not in verdict_of(found)


def test_neither_a_promise_nor_a_share_is_rounded_up_to_all() -> None:
    """An alpha of .9995 and a coverage of 9,997 in 10,000 are not shown as 100 %."""
    scores = np.where(np.arange(10_000) < 3, -1.0, 0.0)
    found = certify(
        CalibrationRows(scores, scores == 0.0, np.ones(10_000), eligible=scores == 0.0), replace(TESTED, alpha=0.9995)
    )
    assert found.certified
    assert found.coverage < 1.0
    assert "at least 99.95 % agree" in verdict_of(found)
    assert title_of(found).startswith("99.9 %")
