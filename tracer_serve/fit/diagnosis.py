"""Diagnose why nothing certifies: too few rows, a weak representation, or a noisy teacher.

The three are distinguished by numbers. No test can pass on so few rows: rows. Else, what the teacher repeats of its own
labels, by replay (`tracer-serve check --teacher-noise`) or over duplicates, puts alpha out of reach even at the upper
end of its interval: teacher. Else what was seen at the first test, or, where something passed but too little, on the
least share of the traffic that is worth serving, would pass with more rows: rows. Else the surrogate does not see what
the teacher sees: representation.
"""

import math
from typing import Literal

import numpy as np

from tracer_serve.fit.calibration import Answered
from tracer_serve.fit.teacher_noise import TeacherNoise
from tracer_serve.gate.binomial import n_min, rows_to_pass
from tracer_serve.gate.certificate import Certificate, Diagnosis
from tracer_serve.gate.wording import percent

_MOST_MORE = 20  # times today's rows: more than that is no advice


def diagnose(
    found: Certificate, seen: Answered, noise: TeacherNoise | None, duplicates: TeacherNoise, least: float = 0.0
) -> Diagnosis:
    """Return why a certificate abstained.

    Parameters
    ----------
    seen : the rows that entered the certificate
    noise : measured by replay; None if it never was
    duplicates : measured by texts that occur in the traces twice
    least : least coverage that is worth a deployment (``gate.min_coverage``)
    """
    needed = n_min(found.alpha, found.delta) if 0 < found.delta < 1 else 0
    overall = float(seen.agreed.mean()) if len(seen.agreed) else 0.0
    numbers = {
        "rows": float(found.rows),
        "acceptable": float(seen.eligible.sum()),
        "rows_for_one_test": float(needed),
        "agreement_on_all": overall,
        "agreement_where_safest": found.agreements / found.n if found.n else 0.0,
        "rows_where_safest": float(found.n),
        "rows_needed": float(found.rows_needed),
    }
    if found.reason == "coverage":
        numbers |= _short_of(found, seen, least)
    best = noise if noise is not None and noise.asked else duplicates
    if best.asked:
        low, high = best.interval()
        numbers |= {"teacher_pairs": float(best.asked), "teacher_agreement": best.agreement}
        numbers |= {"teacher_low": low, "teacher_high": high, "ceiling": best.ceiling()}
    cause = _cause(found, numbers["rows_needed"], best)
    return Diagnosis(cause, _SENTENCES[cause](found, numbers, best), numbers)


def _short_of(found: Certificate, seen: Answered, least: float) -> dict[str, float]:
    """Return how the safest rows fare that are worth serving, and how many rows more would certify them."""
    score = np.where(seen.eligible & np.isfinite(seen.score), seen.score, -np.inf)
    safest = np.argsort(-score, kind="stable")[: math.ceil(least * len(score))]
    n, k = len(safest), int(seen.agreed[safest].sum())
    enough = rows_to_pass(k, n, found.alpha, found.delta if found.delta > 0 else 0.5)  # NaN: an average is promised
    return {
        "certified_coverage": found.coverage,
        "least_coverage": least,
        "agreement_at_least_coverage": k / n,
        "rows_needed": 0.0 if enough is None else math.ceil((enough - n) / least),
    }


def _cause(found: Certificate, rows_needed: float, noise: TeacherNoise) -> Literal["rows", "representation", "teacher"]:
    if found.reason == "insufficient":
        return "rows"
    if found.reason != "recall" and noise.asked and noise.forbids(found.alpha):
        return "teacher"
    return "rows" if 0 < rows_needed <= _MOST_MORE * found.rows else "representation"


def _rows(found: Certificate, numbers: dict[str, float], noise: TeacherNoise) -> str:
    del noise
    if found.reason == "recall" or (found.reason == "insufficient" and found.protected):
        return f"Too few rows of a protected label. About {numbers['rows_needed']:,.0f} more rows would bring enough."
    if found.reason == "insufficient":
        why = f"{n_min(found.alpha, found.delta):,} handled rows without a disagreement are the least that can pass"
    elif found.reason == "coverage":
        why = f"of {_safest(numbers)} agree, which is more than alpha but not surely"
    else:
        why = f"{found.agreements:,} of {found.n:,} agree where it is safest, which is more than alpha but not surely"
    return f"Too few rows: {why}. Bring about {numbers['rows_needed']:,.0f} more."


def _teacher(found: Certificate, numbers: dict[str, float], noise: TeacherNoise) -> str:
    del numbers
    said = noise.sentence(found.alpha)
    return f"The teacher is too noisy: {said}. Lower alpha, or make its prompt and labels clearer."


def _representation(found: Certificate, numbers: dict[str, float], noise: TeacherNoise) -> str:
    if found.reason == "recall":
        return (
            "The surrogate confuses a protected label with others too often. Try a better embedder, bring"
            " more rows of that label, or promise less for it in gate.protect."
        )
    overall = percent(numbers["agreement_on_all"])
    at_best = f"{found.agreements:,} of {found.n:,} rows" if found.n else "no row"
    seen = f"where the surrogate is safest {at_best} agree, over all {overall}, and alpha is {found.alpha:g}"
    if found.reason == "coverage":
        shown = f"{at_best}, {percent(found.coverage)} of the traffic,"
        seen = f"{shown} reach alpha {found.alpha:g}, of {_safest(numbers)} agree, over all {overall}"
    if noise.asked:
        return f"The representation is too weak: {seen}, while {noise.sentence(found.alpha)}. Try a better embedder."
    return (
        f"The representation is too weak, or the teacher too noisy: {seen}. `tracer-serve check TASK.yaml"
        " --teacher-noise 200` shows which; a better embedder fixes the first."
    )


def _safest(numbers: dict[str, float]) -> str:
    share, agreed = numbers["least_coverage"], numbers["agreement_at_least_coverage"]
    return f"the safest {percent(share)} that would be worth serving (gate.min_coverage) {percent(agreed)}"


_SENTENCES = {"rows": _rows, "teacher": _teacher, "representation": _representation}
