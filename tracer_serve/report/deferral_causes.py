"""Causes of a low score: a text far from all others, neighbours with another label, or two likely labels."""

from collections import Counter
from typing import Any

import numpy as np

from tracer_serve.config.fields import label_in_words
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.neighbours import NeighbourRows
from tracer_serve.report.reason_texts import REASONS, SHORT
from tracer_serve.report.reasons import row_of
from tracer_serve.types import Floats, Labels

CAUSES = {
    "far": "far from anything seen",
    "neighbours_differ": "the nearest traces carry another label",
    "hesitates": "hesitates between two labels",
    "scattered": "the nearest traces agree on no label",
    "unsure": "a weak case of its label",
}
"""Causes of ``below_threshold`` (and of ``no_certificate``), in words."""
_FAR = 0.05  # quantile of the handled rows' best cosine
_RIVAL = 0.2  # share of the neighbours from which on the runner-up counts as a rival
_MOST = 0.5  # share of the neighbours below which no label is supported
_LISTED = 30


def why_of(seen: CalibrationView, near: NeighbourRows, reference: NeighbourRows, examples: int = 40) -> dict[str, Any]:
    """Explain the deferrals: counts per cause, pairs of labels, and examples.

    Parameters
    ----------
    near : neighbours of the deferred rows, or of a sample of them
    reference : neighbours of some handled rows, for the usual distance
    """
    codes = seen.reason[near.of]
    causes = _causes(seen, near, _usual(reference))
    detailed = np.isin(codes, ["below_threshold", "no_certificate"])
    clear = (codes == "no_certificate") & (causes == "unsure")  # no threshold makes it a weak case
    final = np.where(detailed & ~clear, causes, codes)
    total = max(1, len(final))
    words = SHORT | CAUSES | {"no_certificate": "a clear case, but nothing is certified"}
    counts = Counter(final.tolist())
    return {
        "deferred": int((~seen.handled).sum()),
        "explained": len(final),
        "causes": [
            {"cause": cause, "words": words[cause], "rows": n, "share": n / total} for cause, n in counts.most_common()
        ],
        "pairs": _pairs(seen, near, final),
        "examples": _examples(seen, near, codes, final, examples),
    }


def _usual(reference: NeighbourRows) -> float:
    best = reference.similarity[:, 0]
    best = best[np.isfinite(best)]
    return float(np.quantile(best, _FAR)) if len(best) else -np.inf


def _causes(seen: CalibrationView, near: NeighbourRows, usual: float) -> Labels:
    top, second = seen.top[near.of], seen.second[near.of]
    mine, rival = near.votes(seen.truth, top), near.votes(seen.truth, second)
    found = np.select(
        [near.similarity[:, 0] < usual, mine < _others(seen, near), rival >= _RIVAL, mine < _MOST],
        ["far", "neighbours_differ", "hesitates", "scattered"],
        "unsure",
    )
    return found.astype(np.str_)


def _others(seen: CalibrationView, near: NeighbourRows) -> Floats:
    """Return the largest share of the neighbours with one label other than the predicted one, shape (m,)."""
    labels = np.where(near.known, seen.truth[near.row], -1)
    labels = np.where(labels == seen.top[near.of][:, None], -1, labels)
    best = np.array([np.bincount(row[row >= 0]).max(initial=0) for row in labels], dtype=float)
    share: Floats = best / np.maximum(near.known.sum(axis=1), 1)
    return share


def _pairs(seen: CalibrationView, near: NeighbourRows, causes: Labels) -> list[dict[str, Any]]:
    """Return the pairs of most likely labels of deferred rows, most frequent first."""
    between = np.isin(causes, ["hesitates", "neighbours_differ", "scattered", "unsure"])
    rows = near.of[between]
    two = np.sort(np.stack([seen.top[rows], seen.second[rows]], axis=1), axis=1)
    kinds, inverse, counts = np.unique(two, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    listed = []
    for i in np.argsort(-counts, kind="stable")[:_LISTED]:
        mine = rows[inverse == i]
        a, b = kinds[i]
        teacher_a, teacher_b = int((seen.truth[mine] == a).sum()), int((seen.truth[mine] == b).sum())
        listed.append(
            {
                "labels": [seen.classes[a], seen.classes[b]],
                "rows": int(counts[i]),
                "teacher_says": [teacher_a, teacher_b, len(mine) - teacher_a - teacher_b],
                "example": seen.shown(int(mine[0])),
            }
        )
    return listed


def _examples(
    seen: CalibrationView, near: NeighbourRows, codes: Labels, causes: Labels, limit: int
) -> list[dict[str, Any]]:
    """Return deferred rows with their explanation, every cause represented."""
    order = np.random.default_rng(0).permutation(len(causes))
    ranked = sorted(order, key=_round_robin(causes[order], order))
    return [
        row_of(seen, int(near.of[i]))
        | {"reason": codes[i], "cause": causes[i], "why": _sentence(seen, near, int(i), str(causes[i]))}
        for i in ranked[:limit]
    ]


def _round_robin(causes: Labels, order: Any) -> Any:
    turn: Counter[str] = Counter()
    places = {}
    for cause, i in zip(causes.tolist(), order.tolist(), strict=True):
        places[i] = turn[cause]
        turn[cause] += 1
    return places.__getitem__


def _sentence(seen: CalibrationView, near: NeighbourRows, i: int, cause: str) -> str:
    row = int(near.of[i])
    top, second = (label_in_words(str(seen.classes[code])) for code in (seen.top[row], seen.second[row]))
    labels = Counter(map(label_in_words, seen.classes[seen.truth[near.row[i][near.known[i]]]].tolist()))
    total = sum(labels.values())
    label, most = labels.most_common(1)[0] if labels else (top, 0)
    distance = (
        f": its nearest trace has cosine {near.similarity[i, 0]:.2f}" if total else " but its own near-duplicates"
    )
    sentences = {
        "far": f"Far from anything seen{distance}.",
        "neighbours_differ": f"The surrogate says {top}, but {most} of its {total} nearest traces are {label}.",
        "hesitates": f"Between {top} ({labels[top]} of {total} nearest traces) and {second} ({labels[second]}).",
        "scattered": f"Its nearest traces agree on no label: {labels[top]} of {total} carry {top}.",
        "unsure": f"{labels[top]} of {total} nearest traces are {top} as well, yet the score is under the threshold.",
    }
    return sentences[cause] if cause in sentences else REASONS[cause][0].upper() + REASONS[cause][1:] + "."
