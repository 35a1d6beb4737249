"""What a fit reports of its progress: embedding, the folds of each surrogate, the fit on all rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from tracer_serve.components.factory import make_surrogate
from tracer_serve.config.load import Task
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.fold_data import Folds
from tracer_serve.fit.progress import CERTIFYING_S, EMBEDDING_S, FINAL_FOLDS, Timeline, fold_seconds
from tracer_serve.infra.parallel import HEAVY, at_once

FINAL, CERTIFYING = "fitting on all rows", "certifying"


@dataclass(slots=True)
class FitProgress:
    """The embedding of each view whose embedder is frozen, and the folds of each surrogate.

    Parameters
    ----------
    views : the rows through each of `Spec.embedders`
    """

    task: Task
    timeline: Timeline
    views: Sequence[Folds]

    def __post_init__(self) -> None:
        folds = self.views[0]
        for number, view in enumerate(self.views):
            if not view.prepared:
                self.timeline.plan(_embedding(number), len(view.rows), expected_s=EMBEDDING_S)
        for s, cost in enumerate(costs_of(self.task)):
            each, abreast = fold_seconds(cost, len(folds.rows), len(folds.classes)), at_once(abreast=cost < HEAVY)
            self.timeline.plan(_folds(s), folds.count, expected_s=each, abreast=abreast, sets_pace=True)

    def begin(self, surrogate: int) -> None:
        """Embed what a surrogate's folds share, and report that the first of them begins."""
        spec = self.task.spec
        number, view = spec.view_of(surrogate), self.views[spec.view_of(surrogate)]
        if not view.prepared:
            key, timeline = _embedding(number), self.timeline
            name = f"embedding by {spec.embedders[number].type}" if len(self.views) > 1 else "embedding"
            timeline.step(key, "loading the encoder")
            view.load()
            timeline.step(key, name)
            view.prepare(lambda done: timeline.step(key, name, done))
        self.fold_done(surrogate, 0)

    def fold_done(self, surrogate: int, done: int) -> None:
        """Report the number of finished folds of a surrogate."""
        count, name = self.views[0].count, self.task.spec.surrogates[surrogate].name
        self.timeline.step(_folds(surrogate), f"fold {min(done + 1, count)} of {count}: {name}", done)

    def skip(self, surrogate: int) -> None:
        """Expect no more of a surrogate that failed or was skipped."""
        self.timeline.drop(_folds(surrogate))


def plan_final(timeline: Timeline, task: Task, rows: Rows) -> None:
    """Plan what follows the comparison: the fit on all rows, and the gate's test."""
    timeline.plan(FINAL, 1, expected_s=FINAL_FOLDS * dearest_fold(task, rows))
    timeline.plan(CERTIFYING, 1, expected_s=CERTIFYING_S)


def dearest_fold(task: Task, rows: Rows) -> float:
    """Return the expected seconds of a fold of the most expensive surrogate."""
    return fold_seconds(max(costs_of(task)), len(rows), len({*rows.labels.tolist()}))


def costs_of(task: Task) -> list[float]:
    """Return the CPU of fitting each surrogate of the spec, in units of logreg's."""
    return [float(getattr(make_surrogate(task, s), "cost", 1.0)) for s in range(len(task.spec.surrogates))]


def _embedding(view: int) -> str:
    return f"embedding {view}"


def _folds(surrogate: int) -> str:
    return f"folds {surrogate}"
