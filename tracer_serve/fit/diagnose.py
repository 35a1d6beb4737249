"""When nothing certifies: too few rows, a representation that is too weak, or a teacher that is too noisy.

The three are told apart by numbers. No test could pass on so few rows: rows. Else, what the teacher repeats of its own
labels, by replay (`tracer-serve check --teacher-noise`) or over duplicates, puts alpha out of reach even at the upper
end of its interval: teacher. Else the agreement seen at the first test would pass with more rows: rows. Else the
surrogate does not see what the teacher sees: representation.
"""

from typing import Literal

from tracer_serve.fit.calibration import Calibration
from tracer_serve.fit.noise import TeacherNoise
from tracer_serve.gate.bounds import n_min
from tracer_serve.records import Certificate, Diagnosis

_MOST_MORE = 20  # times today's rows: more than that is no advice


def diagnose(found: Certificate, seen: Calibration, noise: TeacherNoise | None, duplicates: TeacherNoise) -> Diagnosis:
    """Say why a certificate abstained.

    Parameters
    ----------
    noise : by replay, None where it was never asked for
    duplicates : by texts that stand in the traces twice
    """
    needed = n_min(found.alpha, found.delta) if 0 < found.delta < 1 else 0
    fair = seen.fair
    overall = float(seen.agreed[fair].mean()) if fair.any() else 0.0
    numbers = {
        "rows": float(found.rows),
        "acceptable": float((seen.eligible & fair).sum()),
        "rows_for_one_test": float(needed),
        "agreement_on_all": overall,
        "agreement_where_safest": found.agreements / found.n if found.n else 0.0,
        "rows_where_safest": float(found.n),
        "rows_needed": float(found.rows_needed),
    }
    best = noise if noise is not None and noise.asked else duplicates
    if best.asked:
        low, high = best.interval()
        numbers |= {"teacher_pairs": float(best.asked), "teacher_agreement": best.agreement}
        numbers |= {"teacher_low": low, "teacher_high": high, "ceiling": best.ceiling()}
    cause = _cause(found, best)
    return Diagnosis(cause, _SENTENCES[cause](found, overall, best), numbers)


def _cause(found: Certificate, noise: TeacherNoise) -> Literal["rows", "representation", "teacher"]:
    if found.reason == "insufficient":
        return "rows"
    if noise.asked and noise.forbids(found.alpha):
        return "teacher"
    return "rows" if 0 < found.rows_needed <= _MOST_MORE * found.rows else "representation"


def _rows(found: Certificate, overall: float, noise: TeacherNoise) -> str:
    del overall, noise
    if found.reason == "insufficient":
        why = f"{n_min(found.alpha, found.delta):,} handled rows without a disagreement are the least that can pass"
    else:
        why = f"{found.agreements:,} of {found.n:,} agree where it is safest, which is more than alpha but not surely"
    return f"Too few rows: {why}. Bring about {found.rows_needed:,} more."


def _teacher(found: Certificate, overall: float, noise: TeacherNoise) -> str:
    del overall
    said = noise.sentence(found.alpha)
    return f"The teacher is too noisy: {said}. Lower alpha, or make its prompt and labels clearer."


def _representation(found: Certificate, overall: float, noise: TeacherNoise) -> str:
    at_best = f"{found.agreements:,} of {found.n:,} rows" if found.n else "no row"
    seen = (
        f"where the surrogate is safest {at_best} agree, over all {100 * overall:.1f} %, and alpha is {found.alpha:g}"
    )
    if noise.asked:
        return f"The representation is too weak: {seen}, while {noise.sentence(found.alpha)}. Try a better embedder."
    return (
        f"The representation is too weak, or the teacher too noisy: {seen}. `tracer-serve check TASK.yaml"
        " --teacher-noise 200` tells the two apart; a better embedder mends the first."
    )


_SENTENCES = {"rows": _rows, "teacher": _teacher, "representation": _representation}
