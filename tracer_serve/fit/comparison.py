"""Cross-fit all candidates, cheap ones first, within the time budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from tracer_serve.components.factory import make_acceptor, make_surrogate
from tracer_serve.components.truncation import truncated
from tracer_serve.config.load import Task
from tracer_serve.errors import FitError
from tracer_serve.fit.budget import Budget, Claim, NotWorthItError
from tracer_serve.fit.candidate import Candidate, CandidateStage, Paths
from tracer_serve.fit.cross_fit import cross_fit
from tracer_serve.fit.cross_score import cross_score
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.execution import travelling
from tracer_serve.fit.fit_progress import FitProgress, costs_of
from tracer_serve.fit.fold_data import Folds
from tracer_serve.fit.progress import Progress, Timeline
from tracer_serve.fit.protection import VetoChooser, with_veto
from tracer_serve.fit.selection import Choice, Chooser
from tracer_serve.gate.per_class import floor_eligible
from tracer_serve.gate.scope_guard import scope_threshold
from tracer_serve.infra.parallel import cpu_time
from tracer_serve.policy.input_range import longer_than, longest_of, reads_texts
from tracer_serve.policy.stage import name_of
from tracer_serve.protocols import Embedder
from tracer_serve.types import Bools

TESTED_SHARE = 0.25  # rows of a certificate in `mode: strict`, of the rows that choose
_FLAT = "its score does not clearly rank agreements above disagreements: all or nothing is accepted"
Family = Literal["global", "l2d", "cascade"]
Status = Literal["chosen", "compared", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """One candidate's outcome, for the report.

    Parameters
    ----------
    surrogate, acceptor : names, of a cascade in the order in which they are asked
    family : ``global``, ``l2d`` or ``cascade``
    status : ``chosen``, ``compared``, ``failed`` or ``skipped``
    reach : share of traffic it can reach at alpha by cross-fitted estimate; not a certificate
    agreement : share of all rows on which it agrees with the teacher; of a cascade its last stage
    seconds : CPU seconds of its cross-fit (shared by the acceptors of one surrogate; a cascade reuses them: 0)
    reason : why it failed, was skipped, or is served without its acceptor
    """

    surrogate: str
    acceptor: str | None
    family: Family
    status: Status
    reach: float = 0.0
    agreement: float = 0.0
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """Every surrogate cross-fitted once: enough to choose at any alpha.

    Parameters
    ----------
    seconds : CPU seconds of each surrogate's cross-fit, by its place in the spec
    failed : what failed or was skipped
    """

    folds: Folds
    parts: tuple[CandidateStage, ...]
    seconds: dict[int, float]
    failed: tuple[CandidateResult, ...]

    @property
    def rivals(self) -> int:
        """Surrogates that can win; what acceptors make of one of them are the same answers."""
        return len({part.surrogate for part in self.parts})


def compare(
    task: Task, rows: Rows, embedders: Sequence[Embedder], progress: Progress, refit_rows: int | None = None
) -> Compared:
    """Cross-fit every surrogate with every acceptor, cheap ones first, within the budget.

    Parameters
    ----------
    embedders : in the order of `Spec.embedders`

    Raises
    ------
    FitError
        If every surrogate failed.
    """
    spec = task.spec
    folds = Folds(rows, embedders[0], spec.fit.folds, spec.fit.seed, priced="cascade" in spec.gate.families)
    if not np.ptp(folds.fold):
        raise FitError(
            f"all {len(rows):,} labelled traces are one text and its near-duplicates, which no fold may part:"
            " there is nothing to compare surrogates on. Bring others, or serve on until some came"
        )
    views = [folds, *map(folds.through, embedders[1:])]
    cost = costs_of(task)
    order = sorted(range(len(cost)), key=cost.__getitem__)
    told = FitProgress(task, Timeline.of(progress), views)
    parts: list[CandidateStage] = []
    seconds: dict[int, float] = {}
    failed: list[CandidateResult] = []
    budget = Budget(spec, rows.calibrates)

    for s in order:
        name, cpu, view = spec.surrogates[s].name, cpu_time(), views[spec.view_of(s)]
        try:
            claim = budget.admit(cost[s], parts, folds.count, partial(_at_half, task, views, refit_rows))
            told.begin(s)

            def tick(s: int = s, claim: Claim = claim) -> None:
                claim.trained()
                told.fold_done(s, claim.done)

            parts += _parts(task, s, view, tick, refit_rows)
        except NotWorthItError as error:
            told.skip(s)
            failed.append(CandidateResult(name, None, "l2d", "skipped", reason=str(error)))
        except Exception as error:  # noqa: BLE001  # one broken candidate must not end the fit; the report names it
            told.skip(s)
            why = f"{type(error).__name__}: {error}"
            failed.append(CandidateResult(name, None, "l2d", "failed", reason=why))
        seconds[s] = cpu_time() - cpu
    if not parts:
        raise FitError("every surrogate failed:\n" + "\n".join(f"  {r.surrogate}: {r.reason}" for r in failed))
    return Compared(folds, tuple(parts), seconds, tuple(failed))


def select(
    task: Task, compared: Compared, fair: Bools, alpha: float | None = None
) -> tuple[Choice, tuple[CandidateResult, ...]]:
    """Choose a candidate at alpha (the task's by default) and return the outcome of each."""
    gate = task.spec.gate
    cascade = "cascade" in gate.families
    chooser = Chooser(
        compared.parts, compared.folds.fold, alpha or gate.alpha, gate.delta, cascade=cascade, keep=gate.scope.keep
    )
    choice = chooser.choose(fair)
    results = []
    for candidate in chooser.candidates():
        status: Status = "chosen" if candidate is choice.candidate else "compared"
        results.append(_result(task, compared, candidate, status, chooser.reach(candidate, fair)))
    return choice, (*results, *compared.failed)


def _parts(
    task: Task, surrogate: int, folds: Folds, tick: Callable[[], None], refit_rows: int | None
) -> list[CandidateStage]:
    """Cross-fit one surrogate with every acceptor, and with none (family `global`)."""
    spec = task.spec
    acceptors = [make_acceptor(task, a) for a in range(len(spec.acceptors))]
    protect, make = spec.gate.protect, partial(make_surrogate, travelling(task), surrogate)
    oof = cross_fit(make, acceptors, folds, tick, refit_rows, protect=[*protect])
    oof = replace(oof, view=spec.view_of(surrogate))
    guard = scope_threshold(oof.scope, spec.gate.scope.keep)
    may_answer = ~(_too_long(folds) | oof.truncated)
    if spec.gate.class_floor:
        may_answer &= floor_eligible(
            oof.top, oof.agreed, folds.fold, len(folds.classes), floor=spec.gate.class_floor, delta=spec.gate.delta
        )
    chooser = VetoChooser.of(spec.gate, 1.0 if refit_rows is None else TESTED_SHARE)

    found = []
    if {"l2d", "cascade"} & {*spec.gate.families}:
        for a, features in enumerate(oof.features):
            score = cross_score(lambda a=a: make_acceptor(task, a), features, oof.agreed, folds.fold, folds.group)  # type: ignore[misc]
            flat = np.zeros(len(folds.rows)) if score is None else score
            found.append(CandidateStage(surrogate, a, oof, flat, guard, may_answer, flat=score is None))
    if "global" in spec.gate.families:
        found.append(CandidateStage(surrogate, None, oof, np.zeros(len(folds.rows)), guard, may_answer))
    return [with_veto(part, folds, chooser) for part in found] if protect else found


def _too_long(folds: Folds) -> Bools:
    """Return the rows that are longer than nearly all, or that the embedder reads only in part."""
    texts = folds.rows.texts
    longest = longest_of(texts) if reads_texts(folds.embedder) else -1
    return longer_than(texts, longest) | truncated(folds.embedder, texts)


def _at_half(task: Task, views: Sequence[Folds], refit_rows: int | None, part: CandidateStage) -> Paths:
    """Cross-fit a part's surrogate on a random half of the rows; return its results on the fair rows among them."""
    folds = views[task.spec.view_of(part.surrogate)]
    rows = np.random.default_rng(folds.seed).permutation(len(folds.rows))[: len(folds.rows) // 2]
    half = folds.take(np.sort(rows))
    found = _parts(task, part.surrogate, half, lambda: None, None if refit_rows is None else refit_rows // 2)
    same = next(one for one in found if one.acceptor == part.acceptor)
    return Candidate.single(same).paths.take(half.rows.calibrates)


def names_of(task: Task, part: CandidateStage) -> tuple[str, str | None]:
    """Return the names of a part's surrogate and acceptor; None if all rows are served the same score."""
    acceptor = None if part.acceptor is None or part.flat else task.spec.acceptors[part.acceptor].type
    return task.spec.surrogates[part.surrogate].name, acceptor


def _result(task: Task, compared: Compared, candidate: Candidate, status: Status, reach: float) -> CandidateResult:
    last = candidate.parts[-1]
    surrogate, acceptor = name_of([names_of(task, part) for part in candidate.parts])
    alone = len(candidate.parts) == 1
    return CandidateResult(
        surrogate=surrogate,
        acceptor=acceptor,
        family="cascade" if not alone else "global" if last.acceptor is None else "l2d",
        status=status,
        reach=reach,
        agreement=float(last.oof.agreed.mean()),
        seconds=compared.seconds[last.surrogate] if alone else 0.0,
        reason=_FLAT if last.flat else "",
    )
