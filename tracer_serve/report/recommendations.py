"""The next best action: what a person could do now, the likeliest gain first."""

from collections.abc import Mapping
from typing import Any

from tracer_serve.gate.wording import percent

_SUSPICIOUS = 0.5  # suspicion from which on a card is worth a look for its own sake
_WORTH = 0.02  # coverage
_IMPROVEMENTS = {
    "alarm": (
        "Find out what changed at the alarm",
        "Rows that contradict each other certify little. The dashboard says whether the former version agrees again.",
    ),
    "representation": (
        "Try a better embedder",
        "Unless the teacher does not repeat itself: `tracer-serve check TASK.yaml --teacher-noise 200` asks it again.",
    ),
    "teacher": (
        "Make the teacher's prompt and labels clearer, or lower alpha",
        "It gives too many texts another label when it is asked again.",
    ),
}
_KINDS = {"label": "the label", "length": "texts of", "cluster": "texts", "ngram": "texts with"}


def actions_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the actions that this report's own numbers suggest, best first.

    ``gain`` is the coverage that an action is expected to add, None if unknown.
    """
    found = [*_missing_rows(report), *_weakness(report), *_teacher_mistakes(report), *_more_traces(report)]
    found += [*_blocking_field(report), *_alpha(report), *_worst_slice(report)]
    if found:
        return found
    if not report["headline"]["certified"]:
        return [
            _action("traces", "Collect traces", "Nothing is certified yet; every answer of the teacher adds a trace.")
        ]
    why = "No slice, label or setting stands out; the live monitor watches the agreement."
    return [_action("watch", "Nothing to do: keep it running", why)]


def _missing_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    needed = report["certificate"]["rows_needed"]
    if report["headline"]["certified"] or not needed:
        return []
    why = {
        "insufficient": "No test can pass on so few rows.",
        "recall": "At the recall that was seen, this many more rows would let a protected label pass.",
        "disagreement": "At the agreement that was seen, this many more rows would let the certificate pass.",
    }.get(report["certificate"]["reason"], "The certificate lacks rows.")
    return [_action("traces", f"Bring about {needed:,} more traces", why)]


def _weakness(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name what keeps the gate closed although there are enough rows."""
    found = report["certificate"]
    if report["headline"]["certified"] or found["diagnosis"] is None or found["diagnosis"]["cause"] == "rows":
        return []
    small = (
        [
            _action(
                "coverage",
                f"Decide whether {percent(found['coverage'])} would be worth serving",
                "This much can be certified, but gate.min_coverage is higher.",
                found["coverage"],
            )
        ]
        if found["reason"] == "coverage"
        else []
    )
    cause = found["diagnosis"]["cause"]
    if cause == "representation" and report["basis"]["alarm"]:
        cause = "alarm"
    return [*small, _action("improve", *_IMPROVEMENTS[cause])]


def _teacher_mistakes(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Count the cards worth a review, without those of a label that is rare and poorly learned."""
    listed = (card for card in report["cards"]["cards"] if card["caution"] is None)
    cards = [card for card in listed if card["suspicion"] >= _SUSPICIOUS]
    if not cards:
        return []
    return [
        _action(
            "review",
            f"Review {len(cards)} likely teacher mistake{'' if len(cards) == 1 else 's'}",
            "On these score and other traces speak for the surrogate's label. One that is corrected to it counts as an"
            " agreement at the next refit.",
        )
    ]


def _more_traces(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    ahead = report["plateau"]["forecast"]
    gain = None if ahead is None else ahead["coverage"] - report["headline"]["coverage"]
    if gain is None or gain < _WORTH:
        return []
    return [
        _action(
            "collect",
            f"Collect traces: {ahead['traces']:,} may handle {percent(ahead['coverage'], 0)}",
            f"Coverage still grows with the traces (range {percent(ahead['low'], 0)} to {percent(ahead['high'], 0)}).",
            gain,
        )
    ]


def _blocking_field(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name the field whose absence would add most coverage, where that is much."""
    rows = [row for row in (report.get("fields") or {"rows": []})["rows"] if (row["gain"] or 0.0) >= 5 * _WORTH / 2]
    return [
        _action(
            "field",
            f"Decide whether the field {row['field']} has to be part of the answer",
            f"Without it {percent(row['without'], 0)} could be handled. It alone differs from the teacher's in"
            f" {row['alone']:,} rows.",
            row["gain"],
        )
        for row in rows[:1]
    ]


def _alpha(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Suggest a lower alpha only if it adds much coverage and costs no label its recall: it weakens the promise."""
    what, own = report["whatif"], report["whatif"]["own"]
    now = what["coverage"][own]
    for i in reversed(range(own)):
        gain = what["coverage"][i] - now
        if set(what["low_recalls"][i]) - set(what["low_recalls"][own]):
            break
        if gain >= 5 * _WORTH and what["alpha"][own] - what["alpha"][i] <= 0.05:  # noqa: PLR2004  # still the same promise
            return [
                _action(
                    "alpha",
                    f"Decide whether alpha {what['alpha'][i]:g} would do",
                    f"It would handle {percent(what['coverage'][i], 0)} instead of {percent(now, 0)}.",
                    gain,
                )
            ]
    return []


def _worst_slice(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    worst = report["slices"]["disagreed"]["slices"] or report["slices"]["deferred"]["slices"]
    if not worst:
        return []
    first = worst[0]
    rest = " Is the label's description clear to the teacher?" if first["kind"] == "label" else ""
    if not first["sure"]:
        rest = " It may be chance: many groups were looked at."
    what = "surrogate and teacher differ" if report["slices"]["disagreed"]["slices"] else "rows are deferred"
    return [
        _action(
            "slice",
            f"Look at {_KINDS[first['kind']]} {first['name']}",
            f"There {what}: {first['events']:,} of {first['rows']:,}, {first['lift']:.1f} times the usual.{rest}",
        )
    ]


def _action(action: str, title: str, why: str, gain: float | None = None) -> dict[str, Any]:
    return {"action": action, "title": title, "why": why, "gain": gain}
