"""Glossary: the one explanation of each term that reports and dashboard show as a tooltip."""

from typing import Any

from markupsafe import Markup

GLOSSARY = {
    "teacher": "The large language model whose labels are the reference.",
    "surrogate": "The small, cheap model that imitates the teacher.",
    "handled": "Answered by the surrogate; the teacher is not asked.",
    "deferred": "Sent to the teacher, whose answer is returned.",
    "coverage": "Share of the requests that the surrogate answers.",
    "agreement": "Share of the surrogate's answers to which the teacher gives the same label.",
    "lower bound": "The least agreement that the rows do not rule out, at the confidence that is stated beside it.",
    "alpha": "The agreement with the teacher that is required of the handled requests (gate.alpha).",
    "certificate": "What the gate's test found: how much may be handled at alpha, and what supports that.",
    "recall": "Of the requests that the teacher gives a label, the share that end with this label: deferred ones get it"
    " from the teacher, handled ones only if the surrogate agrees.",
    "promised recall": "The recall that gate.protect demands of a label. The certificate tests it, and the monitor"
    " watches it.",
    "saved": "Teacher calls that are not made, after those that audits make anyway.",
    "audit": "A handled request that is also sent to the teacher, at random, to check the agreement live.",
    "evidence": "How strongly the audits speak against the promise. It starts at 1; at 1 / delta the gate closes.",
    "anytime bound": "A lower bound of the live agreement that stays valid however often one looks.",
    "proved live": "The audits alone have shown that this version agrees more often than alpha.",
    "interval": "Exact 95 % interval (Clopper and Pearson) of a share, for this row alone.",
    "score": "How safe the surrogate's answer is, as the acceptor sees it. Handled from the certified threshold on.",
    "slice": "A group of similar rows: one label, a range of lengths, a cluster, or a word.",
    "lift": "The rate in the slice, divided by the rate of all rows.",
    "suspicion": "Evidence that the teacher is wrong on a row, from 0 to 1. It ranks rows and is no probability.",
    "forecast": "An extrapolation from refits on parts of the rows. For planning, not a promise.",
    "reach": "Coverage that a candidate could have at alpha, estimated by cross-fitting. Not a certificate.",
}
"""Terms and their explanations, plain text."""


def term(name: str, shown: str | None = None) -> Markup:
    """Return a term as a button that its explanation describes; `KeyError` where the glossary has none.

    Examples
    --------
    >>> print(term("alpha"))
    <button type="button" class="term" aria-describedby="term-alpha">alpha</button>
    """
    assert GLOSSARY[name]
    made = Markup('<button type="button" class="term" aria-describedby="{}">{}</button>')
    return made.format(anchor(name), name if shown is None else shown)


def anchor(name: str) -> str:
    """Return the id of a term's explanation."""
    return f"term-{name.replace(' ', '-')}"


def globals_of_templates() -> dict[str, Any]:
    """Return what the templates use of the glossary."""
    return {"glossary": GLOSSARY, "term": term, "anchor": anchor}
