"""Compare two versions: what each promises, saves and loses, side by side."""

from collections.abc import Mapping
from typing import Any

from tracer_serve.config.fields import label_in_words
from tracer_serve.gate.wording import percent

_NOTICEABLE = 0.005  # a change of coverage or recall that is worth a sentence


def comparison_of(before: tuple[int, Mapping[str, Any]], after: tuple[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return two reports of one task side by side.

    Parameters
    ----------
    before, after : version number and its report.json

    Returns
    -------
    ``sentence``, ``versions`` (two rows of facts), and ``labels``, those first whose recall falls most. A version that
    handles nothing loses nothing: its recalls are 1.
    """
    (first, old), (second, new) = before, after
    labels = _labels(old, new)
    return {
        "task": new["task"],
        "sentence": _sentence(first, second, old, new, labels),
        "versions": [_facts(first, old), _facts(second, new)],
        "labels": labels,
    }


def _facts(number: int, report: Mapping[str, Any]) -> dict[str, Any]:
    headline, money = report["headline"], report["money"]
    return {
        "number": number,
        "created": report["created"],
        "rows": report["basis"]["rows"],
        "model": report["policy"]["surrogate"],
        "acceptor": report["policy"]["acceptor"],
        "alpha": report["certificate"]["alpha"],
        "basis": headline["basis"] if headline["certified"] else None,
        "coverage": headline["coverage"],
        "agreement": headline["agreement"],
        "lower_bound": headline["lower_bound"],
        "teacher_calls_saved": headline["teacher_calls_saved"],
        "saved_per_1000": money and money["saved_per_1000"],
        "currency": money and money["currency"],
        "lowest_recall": headline["lowest_recall"],
    }


def _labels(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per label with its recall and handled share in both; None if a version does not know it."""
    tables = [{row["label"]: row for row in report["classes"]["rows"] if row["rows"]} for report in (old, new)]
    rows = []
    for label in tables[0].keys() | tables[1].keys():
        pair = [table.get(label) for table in tables]
        recall: list[Any] = [row and row["recall"] for row in pair]
        change = None if None in recall else recall[1] - recall[0]
        handled = [row and row["handled_share"] for row in pair]
        rows.append({"label": label, "recall": recall, "change": change, "handled": handled})
    return sorted(rows, key=lambda row: (row["change"] is None, row["change"] or 0.0, row["label"]))


def _sentence(
    first: int, second: int, old: Mapping[str, Any], new: Mapping[str, Any], labels: list[dict[str, Any]]
) -> str:
    gain = new["headline"]["coverage"] - old["headline"]["coverage"]
    more = f"{abs(100 * gain):.1f} points {'more' if gain > 0 else 'less'} of the traffic than version {first}"
    said = f"Version {second} handles {more if abs(gain) >= _NOTICEABLE else f'as much as version {first}'}"
    worst = next((row for row in labels if row["change"] is not None), None)
    if worst is None or worst["change"] > -_NOTICEABLE:
        return f"{said}, and no label loses recall."
    return (
        f"{said}, and {label_in_words(worst['label'])!r} loses most: its recall falls from"
        f" {percent(worst['recall'][0])} to {percent(worst['recall'][1])}."
    )
