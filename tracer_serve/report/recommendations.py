"""The next best actions: what a person could do now, with the gain that is expected and the risk for labels."""

from collections.abc import Mapping
from typing import Any

from tracer_serve.config.fields import label_in_words
from tracer_serve.gate.binomial import n_min
from tracer_serve.gate.wording import percent

_SUSPICIOUS = 0.5  # suspicion from which on a card is worth a look for its own sake
_WORTH = 0.02  # coverage
_NEAR = 0.05  # alphas this near are still about the same promise
_LOSS = 0.05  # recall of the worst label that no advice may cost
_PROMISES = (0.95, 0.9, 0.85, 0.8, 0.7)
_NO_RISK = "None for any label: a new fit has to pass the same gate."
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

    ``gain`` is the coverage that an action is expected to add; None if unknown; ``gains`` says in words what else it
    brings, and ``risk`` what it may cost the worst label. None suggests that rows of a rare label are mistakes unless
    the teacher contradicts itself about them.
    """
    found = [*_missing_rows(report), *_weakness(report), *_lost_label(report), *_teacher_mistakes(report)]
    found += [*_more_traces(report), *_blocking_field(report), *_alpha(report), *_worst_slice(report)]
    if found:
        return found
    if not report["headline"]["certified"]:
        why = "Nothing is certified yet; every answer of the teacher adds a trace."
        return [_action("traces", "Collect traces", why, "A first certificate.", _NO_RISK)]
    why = "No slice, label or setting needs attention; the live monitor watches the agreement."
    return [_action("watch", "Nothing to do: keep it running", why, "What is saved now.", _now(report))]


def _missing_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    needed = report["certificate"]["rows_needed"]
    if report["headline"]["certified"] or not needed:
        return []
    why = {
        "insufficient": "No test can pass on so few rows.",
        "recall": "At the recall that was seen, this many more rows would let a protected label pass.",
        "disagreement": "At the agreement that was seen, this many more rows would let the certificate pass.",
    }.get(report["certificate"]["reason"], "The certificate lacks rows.")
    return [_action("traces", f"Bring about {needed:,} more traces", why, "A first certificate.", _NO_RISK)]


def _weakness(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name what keeps the gate closed although there are enough rows."""
    found = report["certificate"]
    if report["headline"]["certified"]:
        return []
    small = []
    if found["reason"] == "coverage":
        title = f"Decide whether {percent(found['coverage'])} would be worth serving"
        why = "This much can be certified, but gate.min_coverage is higher."
        risk = "Read the recall of each label first."
        small = [_action("coverage", title, why, "It could be served at once.", risk, found["coverage"])]
    cause = "rows" if found["diagnosis"] is None else found["diagnosis"]["cause"]
    if cause == "rows":
        return small
    if cause == "representation" and report["basis"]["alarm"]:
        cause = "alarm"
    lower = " A lower alpha promises less for every label." if cause == "teacher" else ""
    return [*small, _action("improve", *_IMPROVEMENTS[cause], "Unknown until the next fit.", _NO_RISK + lower)]


def _lost_label(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Suggest a promise for the label with the lowest recall, as high as its rows can support."""
    what, certificate = report["whatif"], report["certificate"]
    low = what["low_recalls"][what["own"]]
    row = next((row for row in certificate["recalls"] if row["label"] in low), None)
    if not report["headline"]["certified"] or row is None:
        return []
    label, lost = row["label"], row["handled"] - row["right"]
    why = f"{lost:,} of its {row['rows']:,} rows are answered with another label."
    risk = "Coverage falls, and with too few rows of the label nothing is certified."
    level = certificate["delta"]
    promise = next((p for p in _PROMISES if p <= certificate["alpha"] and n_min(p, level) <= row["rows"]), None)
    if promise is None:
        title, gains = f"Collect traces of {label_in_words(label)!r}", "Enough rows to promise its recall."
        return [_action("protect", title, why, gains, "None for any other label.")]
    gains = f"Its recall from {percent(row['recall'])} to at least {percent(promise, 0)}, certified."
    return [_action("protect", f"Promise the recall of {label_in_words(label)!r} (gate.protect)", why, gains, risk)]


def _teacher_mistakes(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Count the cards worth a review; of a rare label only those on which the teacher contradicts itself."""
    listed = (card for card in report["cards"]["cards"] if card["caution"] is None or card["contradicted_by"])
    cards = [card for card in listed if card["suspicion"] >= _SUSPICIOUS or card["contradicted_by"]]
    if not cards:
        return []
    rows = {row["label"]: row["rows"] for row in report["classes"]["rows"]}
    taken = {label: sum(card["teacher"] == label for card in cards) for label in {card["teacher"] for card in cards}}
    most = max(sorted(taken), key=lambda label: taken[label] / max(1, rows.get(label, 0)))
    twice = sum(card["contradicted_by"] is not None for card in cards)
    same = f" On {twice:,} the teacher gave a near-duplicate the surrogate's label." if twice else ""
    title = f"Review {len(cards)} likely teacher mistake{'' if len(cards) == 1 else 's'}"
    why = f"Score and other traces speak for the surrogate's label.{same}"
    gains = "Each correction is one agreement more at the next refit."
    risk = f"Correcting all takes {taken[most]:,} of {rows.get(most, 0):,} rows from"
    risk += f" {label_in_words(most)!r}: judge each text."
    return [_action("review", title, why, gains, risk)]


def _more_traces(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    ahead = report["plateau"]["forecast"]
    if ahead is None or not report["headline"]["certified"]:
        return []
    gain = ahead["coverage"] - report["headline"]["coverage"]
    if gain < _WORTH:
        return []
    title = f"Collect traces: {ahead['traces']:,} may handle {percent(ahead['coverage'], 0)}"
    why = f"A forecast with the range {percent(ahead['low'])} to {percent(ahead['high'])}, no promise."
    return [_action("collect", title, why, "At the same alpha.", _now(report), gain)]


def _blocking_field(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name the field whose absence would add most coverage, where that is much."""
    rows = [row for row in (report.get("fields") or {"rows": []})["rows"] if (row["gain"] or 0.0) >= 5 * _WORTH / 2]
    if not rows:
        return []
    row = rows[0]
    title = f"Decide whether the field {row['field']} has to be part of the answer"
    why = f"It alone differs from the teacher's in {row['alone']:,} rows."
    gains = f"Without it {percent(row['without'], 0)} could be handled, on the same scores."
    return [_action("field", title, why, gains, "Nothing else would answer that field.", row["gain"])]


def _alpha(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Suggest a lower alpha only if it adds much coverage and costs no label its recall: it weakens the promise."""
    what, own = report["whatif"], report["whatif"]["own"]
    now, recall = what["coverage"][own], what["lowest_recall"][own] or 1.0
    for i in reversed(range(own)):
        gain = what["coverage"][i] - now
        if (
            set(what["low_recalls"][i]) - set(what["low_recalls"][own])
            or (what["lowest_recall"][i] or 1.0) < recall - _LOSS
        ):
            break
        if gain >= 5 * _WORTH and what["alpha"][own] - what["alpha"][i] <= _NEAR:
            title = f"Decide whether alpha {what['alpha'][i]:g} would do"
            gains = f"It would handle {percent(what['coverage'][i], 0)} instead of {percent(now, 0)}."
            why = "A lower alpha certifies more of the traffic."
            risk = (
                f"Up to {percent(1 - what['alpha'][i])} of the answers may differ from the teacher's. The lowest recall"
                f" of a label would be {percent(what['lowest_recall'][i])}"
                f" ({label_in_words(what['lowest_label'][i])!r}), now {percent(what['lowest_recall'][own])}."
            )
            return [_action("alpha", title, why, gains, risk, gain)]
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
    title = f"Look at {_KINDS[first['kind']]} {first['name']}"
    why = f"There {what}: {first['events']:,} of {first['rows']:,}, {first['lift']:.1f} times the usual.{rest}"
    return [_action("slice", title, why, "What to describe better, or to collect.", "None: looking changes nothing.")]


def _now(report: Mapping[str, Any]) -> str:
    """Return what more or unchanged handling means for the label with the lowest recall."""
    lowest = report["headline"]["lowest_recall"]
    if lowest is None:
        return "None for any label while nothing is handled."
    if lowest["label"] in {row["label"] for row in report["certificate"]["protected"]}:
        return f"The promised recall of {label_in_words(lowest['label'])!r} is tested again at each refit."
    return (
        f"No recall is promised to {label_in_words(lowest['label'])!r}, now the lowest ({percent(lowest['recall'])})."
    )


def _action(  # noqa: PLR0917  # in the order in which they are read
    action: str, title: str, why: str, gains: str, risk: str, gain: float | None = None
) -> dict[str, Any]:
    return {"action": action, "title": title, "why": why, "gain": gain, "gains": gains, "risk": risk}
