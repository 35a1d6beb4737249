"""What stands behind a low score: far from anything seen, its kin say otherwise, or it hesitates between two labels."""

from collections import Counter
from typing import Any

import numpy as np

from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.neighbours import Kin
from tracer_serve.report.reason_texts import REASONS, SHORT
from tracer_serve.report.reasons import row_of
from tracer_serve.types import Floats, Labels

CAUSES = {
    "far": "far from anything seen",
    "kin_differ": "the nearest traces carry another label",
    "hesitates": "hesitates between two labels",
    "scattered": "the nearest traces agree on no label",
    "unsure": "a weak case of its label",
}
"""What stands behind ``below_threshold`` (and behind ``no_certificate``), in words."""
_FAR = 0.05  # quantile of the handled rows' best cosine
_RIVAL = 0.2  # share of the kin from which on the runner-up counts as a rival
_MOST = 0.5  # share of the kin under which they speak for no label
_LISTED = 30


def why_of(seen: CalibrationView, kin: Kin, reference: Kin, examples: int = 40) -> dict[str, Any]:
    """Explain the deferrals in sum, by pair of labels, and one by one.

    Parameters
    ----------
    kin : of the deferred rows (a sample where there are very many)
    reference : of some handled rows; says how near is usual
    """
    codes = seen.reason[kin.of]
    causes = _causes(seen, kin, _usual(reference))
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
        "pairs": _pairs(seen, kin, final),
        "examples": _examples(seen, kin, codes, final, examples),
    }


def _usual(reference: Kin) -> float:
    best = reference.similarity[:, 0]
    best = best[np.isfinite(best)]
    return float(np.quantile(best, _FAR)) if len(best) else -np.inf


def _causes(seen: CalibrationView, kin: Kin, usual: float) -> Labels:
    top, second = seen.top[kin.of], seen.second[kin.of]
    mine, rival = kin.votes(seen.truth, top), kin.votes(seen.truth, second)
    found = np.select(
        [kin.similarity[:, 0] < usual, mine < _others(seen, kin), rival >= _RIVAL, mine < _MOST],
        ["far", "kin_differ", "hesitates", "scattered"],
        "unsure",
    )
    return found.astype(np.str_)


def _others(seen: CalibrationView, kin: Kin) -> Floats:
    """Return the share of the kin that the most frequent label other than the predicted one holds, shape (m,)."""
    labels = np.where(kin.known, seen.truth[kin.row], -1)
    labels = np.where(labels == seen.top[kin.of][:, None], -1, labels)
    best = np.array([np.bincount(row[row >= 0]).max(initial=0) for row in labels], dtype=float)
    share: Floats = best / np.maximum(kin.known.sum(axis=1), 1)
    return share


def _pairs(seen: CalibrationView, kin: Kin, causes: Labels) -> list[dict[str, Any]]:
    """Return the pairs of labels that deferred rows stand between, most frequent first."""
    between = np.isin(causes, ["hesitates", "kin_differ", "scattered", "unsure"])
    rows = kin.of[between]
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


def _examples(seen: CalibrationView, kin: Kin, codes: Labels, causes: Labels, limit: int) -> list[dict[str, Any]]:
    """Return deferred rows with their explanation, every cause represented."""
    order = np.random.default_rng(0).permutation(len(causes))
    ranked = sorted(order, key=_round_robin(causes[order], order))
    return [
        row_of(seen, int(kin.of[i]))
        | {"reason": codes[i], "cause": causes[i], "why": _sentence(seen, kin, int(i), str(causes[i]))}
        for i in ranked[:limit]
    ]


def _round_robin(causes: Labels, order: Any) -> Any:
    turn: Counter[str] = Counter()
    places = {}
    for cause, i in zip(causes.tolist(), order.tolist(), strict=True):
        places[i] = turn[cause]
        turn[cause] += 1
    return places.__getitem__


def _sentence(seen: CalibrationView, kin: Kin, i: int, cause: str) -> str:
    row = int(kin.of[i])
    top, second = str(seen.classes[seen.top[row]]), str(seen.classes[seen.second[row]])
    near = Counter(seen.classes[seen.truth[kin.row[i][kin.known[i]]]].tolist())
    total = sum(near.values())
    label, most = near.most_common(1)[0] if near else (top, 0)
    distance = f": its nearest trace has cosine {kin.similarity[i, 0]:.2f}" if total else " but its own near-duplicates"
    told = {
        "far": f"Far from anything seen{distance}.",
        "kin_differ": f"The surrogate says {top}, but {most} of its {total} nearest traces are {label}.",
        "hesitates": f"Between {top} ({near[top]} of {total} nearest traces) and {second} ({near[second]}).",
        "scattered": f"Its nearest traces agree on no label: {near[top]} of {total} carry {top}.",
        "unsure": f"{near[top]} of {total} nearest traces are {top} as well, yet the score is under the threshold.",
    }
    return told[cause] if cause in told else REASONS[cause][0].upper() + REASONS[cause][1:] + "."
