"""A fit's outcome to the report's data (docs/report.md is its schema)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tracer_serve.fit.pipeline import Fitted
from tracer_serve.load import Task
from tracer_serve.records import Text
from tracer_serve.report.changes import history_of
from tracer_serve.report.classes import classes_of
from tracer_serve.report.curve import curve_of
from tracer_serve.report.headline import basis_of, headline_of
from tracer_serve.report.plain import plain
from tracer_serve.report.reasons import examples_of
from tracer_serve.report.seen import Seen

SCHEMA = 1
"""Version of the schema of report.json."""


def build_report(
    task: Task, fitted: Fitted, texts: Sequence[Text], earlier: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return report.json: finite numbers, strings, lists and objects only, None for what is not known.

    Parameters
    ----------
    fitted : the fit's outcome
    texts : `texts[i]` belongs to row i of ``fitted.calibration``
    earlier : report.json of earlier versions, oldest first
    """
    if len(texts) != len(fitted.calibration.row):
        raise ValueError(f"{len(texts)} texts for {len(fitted.calibration.row)} calibration rows")
    seen = Seen.of(fitted, texts)
    headline, created = headline_of(task, seen), datetime.now(UTC).isoformat(timespec="seconds")
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "task": task.spec.name,
        "created": created,
        "basis": basis_of(seen),
        "headline": headline,
        "certificate": fitted.certificate,
        "policy": {"surrogate": fitted.policy.names[0], "acceptor": fitted.policy.names[1]},
        "curve": curve_of(seen),
        "classes": classes_of(seen),
        "examples": examples_of(seen, seed=task.spec.fit.seed),
        "candidates": fitted.candidates,
        "history": history_of(headline, created, earlier),
    }
    found: dict[str, Any] = plain(report)
    return found
