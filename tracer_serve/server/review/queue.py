"""Rows that a person should judge: audits that disagreed, new labels, likely teacher mistakes, other differences."""

import json
from typing import Any

from tracer_serve.report.json_values import joined
from tracer_serve.serving.runtime import Runtime
from tracer_serve.storage.traces import TraceStore
from tracer_serve.types import Trace

KINDS = {
    "audit": "An audit disagreed: the user got the surrogate's label.",
    "new_label": "The teacher gave a label that the version does not know.",
    "card": "The other traces speak against the teacher's label.",
    "difference": "Surrogate and teacher differ; the user got the teacher's label.",
}
"""Why a row is in the queue, most urgent first."""
_MOST = 200


def queue_of(runtime: Runtime, key_id: str | None, *, admin: bool, limit: int = _MOST) -> list[dict[str, Any]]:
    """Return rows that wait for a person's label, most urgent first; without a human label so far.

    Parameters
    ----------
    key_id, admin : whose rows: those that this key may correct, an operator's key all
    """
    loaded = runtime.live.loaded
    known = frozenset(() if loaded is None else loaded.labels)
    new = [label for label in runtime.store.tallies.counts().by_label if known and label not in known]
    found = [
        _item(trace, known) for trace in runtime.store.traces.to_review(limit, new, None if admin else key_id, admin)
    ]
    listed = {item["id"] for item in found}
    found += [item for item in _cards(runtime, key_id, admin=admin) if item["id"] not in listed]
    order = list(KINDS)
    return sorted(found, key=lambda item: (order.index(item["kind"]), -(item["suspicion"] or 0.0)))[:limit]


def labels_of(runtime: Runtime) -> list[str]:
    """Return the labels that a person may give: the closed set, or what the version and the teacher have given."""
    closed = runtime.task.spec.label_names
    loaded = runtime.live.loaded
    given = runtime.store.tallies.counts().by_label
    return list(closed) or sorted({*(() if loaded is None else loaded.labels), *given})


def _item(trace: Trace, known: frozenset[str]) -> dict[str, Any]:
    new = bool(known) and trace.teacher_label not in known
    kind = "new_label" if new else "audit" if trace.decision == "handled" else "difference"
    return _row(trace, kind, trace.surrogate_label)


def _row(trace: Trace, kind: str, surrogate: str | None, suspicion: float | None = None) -> dict[str, Any]:
    return {
        "id": trace.id,
        "kind": kind,
        "why": KINDS[kind],
        "text": joined(trace.input, 4000),
        "teacher": trace.teacher_label,
        "surrogate": surrogate,
        "score": trace.score,
        "suspicion": suspicion,
        "at": trace.ts.isoformat(timespec="seconds"),
    }


def _cards(runtime: Runtime, key_id: str | None, *, admin: bool) -> list[dict[str, Any]]:
    """Return the disagreement cards of the version's report whose rows are still in the store."""
    loaded = runtime.live.loaded
    file = None if loaded is None else runtime.versions.folder(loaded.number) / "report.json"
    if file is None or not file.is_file():
        return []
    cards = json.loads(file.read_text(encoding="utf-8")).get("cards", {}).get("cards", [])
    pairs = [(card, _trace(runtime.store, card)) for card in cards if card["suspicion"] >= 0.5]  # noqa: PLR2004  # as advised
    return [
        _row(trace, "card", card["surrogate"], card["suspicion"])
        for card, trace in pairs
        if trace is not None and trace.label_source != "human" and (admin or trace.key_id == key_id)
    ]


def _trace(store: TraceStore, card: dict[str, Any]) -> Trace | None:
    return store.traces.get(card["id"]) if card.get("id") else None
