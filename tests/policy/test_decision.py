"""One decision rule: report and server give the same text the same reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tasks import banking, write_task
from tracer_serve.components.factory import make_embedder
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.gate.certificate import Certificate, ClassRow
from tracer_serve.policy.decision import CERTIFIED, Conditions, certificate_reasons, decide
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.reason_texts import BRIEF, REASONS

ROWS = 600
SPECS: list[dict[str, Any]] = [
    {"gate": {"alpha": 0.8}},
    {"gate": {"alpha": 0.8, "scope": {"keep": 0.8}, "class_floor": 0.6}},
    {"gate": {"alpha": 0.6, "per_class": True, "min_coverage": 0.01}},
    {"gate": {"alpha": 0.85, "families": ["cascade"]}, "surrogates": ["knn", "logreg"]},
    {"gate": {"alpha": 0.999}},
]


@pytest.mark.parametrize("spec", SPECS, ids=["plain", "guards", "per_class", "cascade", "uncertified"])
def test_a_served_rows_reason_is_the_reports_reason(tmp_path: Path, spec: dict[str, Any]) -> None:
    """The served policy gives every calibration row of a strict fit the reason that its report gives."""
    gate = {"delta": 0.2, "mode": "strict", **spec["gate"]}
    task = write_task(tmp_path, rows=ROWS, **(spec | {"gate": gate, "fit": {"folds": 2}}))
    texts, labels = banking(ROWS)
    fitted = fit_policy(task, Rows.of(texts, labels), make_embedder(task))
    seen = CalibrationView.of(task, fitted, [texts[i] for i in fitted.calibration.row])
    served = fitted.policy.score(seen.texts)
    np.testing.assert_allclose(served.score, seen.score, atol=1e-5)
    clear = np.ones(len(seen), bool)
    for value, least in (
        (seen.score, fitted.certificate.threshold),
        (served.scope, np.array([stage.scope_threshold for stage in fitted.policy.stages])[served.stage]),
    ):
        clear &= ~(np.abs(value - least) < 1e-5)  # float32 sums depend on the size of a batch
    assert clear.mean() > 0.9
    assert served.reason[clear].tolist() == seen.reason[clear].tolist()
    assert {*seen.reason} <= {*REASONS}


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([-np.inf, -1.0, 0.0, 0.3, 0.5, np.inf, np.nan]),
            st.integers(0, 2),
            st.booleans(),
            st.booleans(),
            st.booleans(),
            st.booleans(),
        ),
        min_size=1,
        max_size=20,
    ),
    threshold=st.sampled_from([-np.inf, 0.0, 0.3]),
    certified=st.booleans(),
    per_class=st.booleans(),
)
def test_a_row_is_certified_exactly_where_every_guard_and_the_threshold_pass(
    rows: list[tuple[float, int, bool, bool, bool, bool]], threshold: float, certified: bool, per_class: bool
) -> None:
    """`certified` is given to a row of a certified version that passes threshold and guards."""
    table = (ClassRow("a", 9, 9, 9, 0.9, threshold, certified=True), ClassRow("b", 9, 9, 9, 0.9, np.inf))
    found = Certificate(
        certified, "x", 0.9, 0.05, "strict", 9, 9, 9, 0.9, threshold, 0.5, per_class=per_class, classes=table
    )
    score, top, too_long, in_scope, open_, vetoed = (np.array(part) for part in zip(*rows, strict=True))
    guards = {"too_long": too_long, "in_scope": in_scope, "open_": open_, "vetoed": vetoed}
    reasons = certificate_reasons(found, np.array(["a", "b", "c"]), score=score, top=top, **guards)
    for (value, label, long, inside, allowed, barred), reason in zip(rows, reasons.tolist(), strict=True):
        passes = np.isfinite(value) and value >= threshold and not long and inside and allowed and not barred
        passes &= label == 0 or not per_class
        assert (reason == CERTIFIED) == (certified and passes)
        assert reason in REASONS


@given(
    reason=st.sampled_from(sorted(REASONS)),
    closed=st.booleans(),
    mode=st.sampled_from(["observe", "canary", "enforce"]),
    inside=st.booleans(),
)
def test_only_certified_answers_are_withheld(reason: str, closed: bool, mode: Any, inside: bool) -> None:
    """A closed gate, `observe` and a canary withhold certified answers and change no other reason."""
    found = decide(reason, Conditions(closed, mode, inside))
    counts = not closed and (mode == "enforce" or (mode == "canary" and inside))
    assert (found == CERTIFIED) == (reason == CERTIFIED and counts)
    assert found in BRIEF
    if reason != CERTIFIED:
        assert found == reason
