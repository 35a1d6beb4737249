"""Build report.json from a fit's result (schema: docs/report.md)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tracer_serve.config.load import Task
from tracer_serve.fit.result import Fitted
from tracer_serve.report.alpha_sweep import asked_of, whatif_of
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.changes import changes_of
from tracer_serve.report.confusions import flows_of
from tracer_serve.report.contrastive_pairs import contrast_of
from tracer_serve.report.coverage_curve import curve_of
from tracer_serve.report.deferral_causes import why_of
from tracer_serve.report.disagreements import cards_of
from tracer_serve.report.fields import field_rows, value_rows
from tracer_serve.report.headline import basis_of, headline_of
from tracer_serve.report.hidden_texts import hide_texts
from tracer_serve.report.json_values import SCHEMA, plain
from tracer_serve.report.labels import classes_of
from tracer_serve.report.learning_curve import plateau_of
from tracer_serve.report.map import atlas_of
from tracer_serve.report.member_votes import members_of
from tracer_serve.report.migration import migration_of
from tracer_serve.report.neighbours import NeighbourRows
from tracer_serve.report.pricing import money_of
from tracer_serve.report.reasons import examples_of
from tracer_serve.report.recommendations import actions_of
from tracer_serve.report.slices import slices_of
from tracer_serve.report.stage_costs import cascade_costs_of, names_of
from tracer_serve.report.subgroups import Groups
from tracer_serve.types import Bools, Ints, Text

_MOST = 5_000  # rows of one kind whose nearest rows are looked up


def build_report(
    task: Task,
    fitted: Fitted,
    texts: Sequence[Text],
    earlier: Sequence[dict[str, Any]],
    migration: Mapping[str, Any] | None = None,
    *,
    left_out: int = 0,
    alarm: str | None = None,
    teacher: str | None = None,
    ids: Sequence[str] = (),
) -> dict[str, Any]:
    """Return report.json: finite numbers, strings, lists and objects only; None means unknown.

    Parameters
    ----------
    fitted : the fit's outcome
    texts : `texts[i]` belongs to row i of ``fitted.calibration``
    earlier : report.json of earlier versions, oldest first
    migration : labels that changed when this teacher relabelled the previous teacher's texts; see `migration_of`
    left_out : number of labelled rows beyond `fit.max_traces`
    alarm : time of the last alarm (UTC, ISO 8601); only later rows calibrate
    teacher : fingerprint of the teacher whose labels calibrate
    ids : `ids[i]` is the trace of row i of ``fitted.calibration``; empty if the rows are no traces
    """
    if len(texts) != len(fitted.calibration.row):
        raise ValueError(f"{len(texts)} texts for {len(fitted.calibration.row)} calibration rows")
    seen, seed = CalibrationView.of(task, fitted, texts), task.spec.fit.seed
    deferred, handled, wrong = (_some(rows, seed) for rows in (~seen.handled, seen.handled, ~seen.agreed))
    report: dict[str, Any] = plain(
        {
            "schema": SCHEMA,
            "task": task.spec.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "basis": basis_of(seen, alarm) | {"alarm": alarm, "teacher": teacher},
            "headline": headline_of(task, seen),
            "money": money_of(task, seen),
            "certificate": fitted.certificate,
            "policy": dict(zip(("surrogate", "acceptor"), names_of(fitted.certificate), strict=True)),
            "cascade_costs": cascade_costs_of(fitted.certificate),
            "curve": curve_of(task, seen),
            "whatif": whatif_of(task, fitted),
            "fields": _fields(task, fitted, seen),
            "slices": slices_of(seen, Groups.of(seen)),
            "why": why_of(seen, NeighbourRows.find(seen, deferred), NeighbourRows.find(seen, handled[:1000])),
            # the members of answers with fields are the fields, which have no vote of their own
            "members": None if task.spec.fields else members_of(fitted, seen, seed),
            "contrast": contrast_of(seen),
            "cards": cards_of(seen, NeighbourRows.find(seen, wrong)),
            "plateau": plateau_of(task, fitted, seen),
            "map": atlas_of(seen, seed),
            "flows": flows_of(seen),
            "classes": classes_of(seen),
            "examples": examples_of(seen, seed=seed),
            "candidates": fitted.candidates,
            "migration": migration_of(migration),
            "left_out": left_out,
        }
    )
    fair = np.flatnonzero(fitted.calibration.fair)
    for card in report["cards"]["cards"]:
        card["id"] = ids[int(fair[card["row"]])] if ids else None
    if task.spec.report.texts == "hidden":
        report = hide_texts(report)
    report["changes"] = plain(changes_of(report, [old for old in earlier if old.get("schema") == SCHEMA]))
    report["actions"] = plain(actions_of(report))
    return report


def _fields(task: Task, fitted: Fitted, seen: CalibrationView) -> dict[str, Any] | None:
    """Return what each field and each of its values contributes; None if the answer is one label."""
    if not task.spec.fields:
        return None
    rows = field_rows(fitted.calibration, fitted.certificate, asked_of(task, fitted))
    return {"rows": rows, "values": value_rows(seen.classes, seen.top, seen.truth, seen.handled)}


def _some(rows: Bools, seed: int) -> Ints:
    """Return the rows in random order, at most `_MOST` of them."""
    found = np.random.default_rng(seed).permutation(np.flatnonzero(rows))
    return found[:_MOST]
