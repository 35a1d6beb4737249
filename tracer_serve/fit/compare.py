"""Which candidates there are and how they fare: cross-fitted, cheap ones first, within the budget."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tracer_serve.components import make_acceptor, make_surrogate
from tracer_serve.errors import FitError
from tracer_serve.fit.choose import Candidate, Choice, choose
from tracer_serve.fit.crossfit import cross_fit, cross_score
from tracer_serve.fit.rows import Folds, Progress, Rows
from tracer_serve.gate.scope import scope_threshold
from tracer_serve.load import Task
from tracer_serve.protocols import Embedder

_STAGE = "comparing candidates"


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """One candidate's outcome, for the report.

    Parameters
    ----------
    family : ``global`` or ``l2d``
    status : ``chosen``, ``compared``, ``failed`` or ``skipped``
    reach : share of traffic it can reach at alpha by cross-fitted estimate; not a certificate
    agreement : share of all rows on which it agrees with the teacher
    seconds : CPU seconds of its cross-fit (shared by the acceptors of one surrogate)
    reason : why it failed or was skipped
    """

    surrogate: str
    acceptor: str | None
    family: Literal["global", "l2d"]
    status: Literal["chosen", "compared", "failed", "skipped"]
    reach: float = 0.0
    agreement: float = 0.0
    seconds: float = 0.0
    reason: str = ""


def compare(
    task: Task, rows: Rows, embedder: Embedder, progress: Progress, refit_rows: int | None = None
) -> tuple[Folds, Choice, tuple[CandidateResult, ...]]:
    """Cross-fit every candidate, cheap ones first, within the budget, and choose one."""
    spec = task.spec
    folds = Folds(rows, embedder, spec.fit.folds, spec.fit.seed)
    order = sorted(range(len(spec.surrogates)), key=lambda s: getattr(make_surrogate(task, s), "cost", 1.0))
    total, done = len(order) * folds.count, 0
    candidates: list[Candidate] = []
    results: list[CandidateResult] = []
    started = time.monotonic()

    def tick() -> None:
        nonlocal done
        done += 1
        progress(_STAGE, done, total)

    for s in order:
        name, cpu = spec.surrogates[s].type, time.process_time()
        if candidates and time.monotonic() - started > spec.fit.budget_s:
            why = f"fit.budget_s of {spec.fit.budget_s:g} s was spent on cheaper candidates"
            results.append(CandidateResult(name, None, "l2d", "skipped", reason=why))
            continue
        try:
            found = _candidates(task, s, folds, tick, refit_rows)
        except Exception as error:  # noqa: BLE001  # one broken candidate must not end the fit; the report names it
            why = f"{type(error).__name__}: {error}"
            results.append(CandidateResult(name, None, "l2d", "failed", reason=why))
            continue
        candidates += found
        spent = time.process_time() - cpu
        results += [_result(task, c, spent) for c in found]
    if not candidates:
        raise FitError("every surrogate failed:\n" + "\n".join(f"  {r.surrogate}: {r.reason}" for r in results))
    choice, reaches = choose(candidates, folds.fold, rows.calibrates, spec.gate.alpha, spec.gate.delta)
    compared = iter(zip(candidates, reaches, strict=True))
    final = [_judged(r, *next(compared), choice.candidate) if r.status == "compared" else r for r in results]
    return folds, choice, tuple(final)


def _candidates(
    task: Task, surrogate: int, folds: Folds, tick: Callable[[], None], refit_rows: int | None
) -> list[Candidate]:
    """Cross-fit one surrogate with every acceptor, and with none (family `global`)."""
    spec = task.spec
    acceptors = [make_acceptor(task, a) for a in range(len(spec.acceptors))]
    oof = cross_fit(lambda: make_surrogate(task, surrogate), acceptors, folds, tick, refit_rows)
    eligible = oof.scope >= scope_threshold(oof.scope, spec.gate.scope.keep)
    found = []
    if "l2d" in spec.gate.families:
        for a, features in enumerate(oof.features):
            score = cross_score(lambda a=a: make_acceptor(task, a), features, oof.agreed, folds.fold)  # type: ignore[misc]
            found.append(Candidate(surrogate, a, oof, score, eligible))
    if "global" in spec.gate.families:
        found.append(Candidate(surrogate, None, oof, np.zeros(len(folds.rows)), eligible))
    return found


def _result(task: Task, candidate: Candidate, seconds: float) -> CandidateResult:
    a = candidate.acceptor
    return CandidateResult(
        surrogate=task.spec.surrogates[candidate.surrogate].type,
        acceptor=None if a is None else task.spec.acceptors[a].type,
        family="global" if a is None else "l2d",
        status="compared",
        agreement=float(candidate.oof.agreed.mean()),
        seconds=seconds,
    )


def _judged(result: CandidateResult, candidate: Candidate, reach: float, winner: Candidate) -> CandidateResult:
    return replace(result, reach=reach, status="chosen" if candidate is winner else "compared")
