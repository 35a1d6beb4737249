"""Write the queue for Label Studio and Argilla, and read judgements back."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

Format = Literal["label-studio", "argilla"]


def exported(items: Sequence[Mapping[str, Any]], form: Format) -> Iterator[str]:
    """Yield a line of JSON per row: a Label Studio task with predictions, or an Argilla record with a suggestion.

    Label Studio needs a labelling interface with ``<Text name="text" value="$text"/>`` and ``<Choices name="label"
    toName="text">``, Argilla a field ``text`` and a question ``label``.
    """
    write = {"label-studio": _to_label_studio, "argilla": _to_argilla}[form]
    for item in items:
        yield json.dumps(write(item)) + "\n"


def judgements(body: bytes) -> Iterator[tuple[int, str, str] | tuple[int, None, str]]:
    """Yield line number, trace id and label of each judgement, or line number, None and the problem.

    Rows without a judgement are left out.

    Parameters
    ----------
    body : JSON lines, or one JSON array, as Label Studio exports it; tasks, records and ``{"id", "label"}`` may mix
    """
    for number, row in _rows(body):
        if not isinstance(row, Mapping):
            yield number, None, "this line is no JSON object"
            continue
        trace_id, label = _judgement(row)
        if label is None:
            continue
        if trace_id is None:
            yield number, None, "this row has no trace id (id, or data.trace_id)"
            continue
        yield number, trace_id, label


def _rows(body: bytes) -> Iterator[tuple[int, Any]]:
    if body.lstrip()[:1] == b"[":
        try:
            yield from enumerate(json.loads(body), 1)
        except ValueError:
            yield 1, None
        return
    for number, line in enumerate(body.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _judgement(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return trace id and label of a task, a record, or a plain row; None for what it lacks."""
    label: Any = row.get("label")
    trace_id: Any = row.get("id")
    if "annotations" in row:
        trace_id = _at(row, "data", "trace_id")
        given = row["annotations"]
        done = [one for one in given if not _at(one, "was_cancelled")] if isinstance(given, list) else []
        label = _at(done[-1] if done else None, "result", 0, "value", "choices", 0)
    elif "fields" in row:
        label = _at(row, "responses", "label", 0, "value")
    return trace_id if isinstance(trace_id, str) else None, label if isinstance(label, str) else None


def _at(value: Any, *path: str | int) -> Any:
    """Return what is at a path; None if it ends before."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _to_label_studio(item: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"trace_id": item["id"], **{name: item[name] for name in ("text", "kind", "teacher", "surrogate", "at")}}
    score: Callable[[str], dict[str, Any]] = lambda who: (  # noqa: E731
        {"score": item["suspicion"]} if who == "surrogate" and item["suspicion"] is not None else {}
    )
    predictions = [
        {"model_version": who, "result": [_choice(item[who])]} | score(who)
        for who in ("surrogate", "teacher")
        if item[who] is not None
    ]
    return {"data": facts, "predictions": predictions}


def _choice(label: str) -> dict[str, Any]:
    return {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [label]}}


def _to_argilla(item: Mapping[str, Any]) -> dict[str, Any]:
    suggested = {
        "value": item["surrogate"] or item["teacher"],
        "agent": "surrogate" if item["surrogate"] else "teacher",
    }
    if item["suspicion"] is not None:
        suggested["score"] = item["suspicion"]
    metadata = {name: item[name] for name in ("kind", "teacher", "at")}
    return {
        "id": item["id"],
        "fields": {"text": item["text"]},
        "metadata": metadata,
        "suggestions": {"label": suggested},
    }
