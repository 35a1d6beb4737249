"""The arm of tracer-serve in `bench.coverage`: the product's own fit, its gate at each alpha, its decisions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.apart import peak_mb
from bench.coverage_row import Row, facts_of, judge
from bench.data import ENCODER, Dataset, Given, Part
from tracer_serve.components.embedders._pairs import PairEmbedder
from tracer_serve.components.registry import embedders
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.folds import newest_holdout
from tracer_serve.fit.gating import settings_of
from tracer_serve.fit.groups import groups_of
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.progress import Progress
from tracer_serve.fit.result import Fitted
from tracer_serve.gate.certify import certify
from tracer_serve.gate.per_class import class_thresholds
from tracer_serve.gate.scope_guard import scope_threshold
from tracer_serve.gate.settings import CalibrationRows, GateSettings
from tracer_serve.policy.policy import Policy
from tracer_serve.policy.verdicts import Verdicts
from tracer_serve.types import Bools, Labels

KEEPS = (1.0, 0.98, 0.97)
_KEEP = (0.98,)  # of a cascade, which is fitted again for each
OURS: dict[str, Any] = {"surrogates": ["blend"], "acceptors": ["logistic"]}
_PRICED = {"model": ENCODER, "backend": "onnx"}  # cost of embedding, which a cascade may save


@dataclass(frozen=True, slots=True)
class Wanted:
    """Settings of the arm of tracer-serve.

    Parameters
    ----------
    spec : overrides of the task's spec
    keeps : scope guards; none: `KEEPS`, of a cascade the default one
    halves : number of random halves of the test rows that certify the fitted policy again
    """

    alphas: Sequence[float]
    delta: float
    spec: dict[str, Any]
    keeps: Sequence[float] = ()
    halves: int = 0


def ours(data: Dataset, wanted: Wanted, progress: Progress) -> list[Row]:
    """Fit once by the product's own `fit_policy`, certify at each alpha, judge on the test rows.

    A cascade is fitted again for each alpha and guard, because its stages' places on one path depend on them.
    """
    cascade = "cascade" in wanted.spec.get("gate", {}).get("families", ())
    if cascade and wanted.halves:
        raise SystemExit("halves are for policies of one stage")
    keeps = wanted.keeps or (_KEEP if cascade else KEEPS)
    asked = [(alpha, keep) for alpha in wanted.alphas for keep in keeps]
    rows = []
    for fits in [[one] for one in asked] if cascade else [asked]:
        task = _task(data, wanted, *fits[0])
        started = time.process_time()
        encoder = embedders.build("sentence_transformers", _PRICED)
        embedder = Given(data.train, uncached=PairEmbedder(encoder) if data.name == "sick" else encoder)
        fitted = fit_policy(task, Rows.of(data.train.texts, data.train.labels), embedder, progress)
        cost = {"cpu_s": time.process_time() - started, "peak_mb": peak_mb(), "delta": wanted.delta, **facts_of(data)}
        once = None if cascade else [_ask(fitted.policy, part) for part in (data.test, data.foreign) if len(part)]
        for alpha, keep in fits:
            policy = fitted.policy if cascade else certified_at(fitted, task, alpha, keep)
            facts = {"system": "tracer-serve", "alpha": alpha, "scope_keep": keep, **cost}
            rows.append(_judged(policy, data, once, facts))
        if once is not None:
            for draw in range(wanted.halves):
                rows += halved(fitted, data.test, once[0], wanted.alphas, {**cost, "draw": draw})
    return rows


def _task(data: Dataset, wanted: Wanted, alpha: float, keep: float) -> Task:
    required = {"name": "bench", "teacher": "offline", "input": "pair" if data.name == "sick" else "text"}
    required["embedder"] = "sentence_transformers"  # its vectors are given; a surrogate may name another embedder
    gate = {"scope": {"keep": keep}} | wanted.spec.get("gate", {}) | {"alpha": alpha, "delta": wanted.delta}
    return Task(Spec.model_validate({**required, **wanted.spec, "gate": gate}), Path("bench"), "")


def _judged(policy: Policy, data: Dataset, once: list[Verdicts] | None, facts: dict[str, Any]) -> Row:
    if once is None:
        (handled, given, first), (foreign, _, _) = (_decide(policy, part) for part in (data.test, data.foreign))
    else:
        handled, foreign = [*(_handled(policy, asked) for asked in once), np.zeros(0, bool)][:2]
        given, first = policy.classes[once[0].top], handled
    row = judge(given, handled, foreign, data.test.labels, certified_coverage=policy.certificate.coverage, **facts)
    return replace(row, first_share=float(first.mean()) if len(policy.stages) > 1 else None)


def halved(fitted: Fitted, test: Part, asked: Verdicts, alphas: Sequence[float], facts: dict[str, Any]) -> list[Row]:
    """Certify the fitted policy on a random half of the test rows, none of which it has seen; judge on the other."""
    policy, draw = fitted.policy, facts["draw"]
    given, groups = policy.classes[asked.top], groups_of(test.texts)
    calibrates = newest_holdout(groups, np.ones(len(groups), bool), 0.5, draw)
    guard, judged = scope_threshold(fitted.answered.scope, KEEPS[0]), ~calibrates
    judgements = []
    for alpha in alphas:
        found = certify(
            CalibrationRows(
                asked.score[calibrates],
                (given == test.labels)[calibrates],
                eligible=(asked.scope >= guard)[calibrates],
                groups=groups[calibrates],
            ),
            GateSettings(alpha=alpha, delta=facts["delta"], seed=draw),
        )
        handled = found.certified & (asked.scope >= guard) & (asked.score >= found.threshold)
        own = {"system": "tracer-serve, halves", "alpha": alpha, "scope_keep": KEEPS[0]}
        own |= {"certified_coverage": found.coverage if found.certified else 0.0}
        judgements.append(judge(given[judged], handled[judged], np.zeros(0, bool), test.labels[judged], **own, **facts))
    return judgements


def certified_at(fitted: Fitted, task: Task, alpha: float, keep: float) -> Policy:
    """Certify the fitted policy again, as `fit_policy` does, at another alpha and another scope guard."""
    calibration = fitted.calibration
    guard = scope_threshold(calibration.paths.scope[0], keep)
    asked = settings_of(task, calibration.mode, rivals=calibration.rivals)
    rows = replace(calibration.rows(), eligible=calibration.paths.scope[0] >= guard)
    certificate = certify(rows, replace(asked, alpha=alpha))
    stages = tuple(replace(stage, scope_threshold=guard) for stage in fitted.policy.stages)
    return replace(fitted.policy, certificate=certificate, stages=stages)


def _ask(policy: Policy, part: Part) -> Verdicts:
    """Run a policy of one stage on each row, once for all alphas, guards and halves, because an encoder is slow."""
    (stage,) = policy.stages
    given = {stage.view: part.vectors} if isinstance(stage.view.embedder, Given) else {}
    (asked,) = policy.ask_all(part.texts, given)
    return asked


def _handled(policy: Policy, asked: Verdicts) -> Bools:
    (stage,), threshold = policy.stages, class_thresholds(policy.certificate, policy.classes)
    passes: Bools = np.isfinite(asked.score) & (asked.score >= threshold[asked.top])
    return (
        passes & stage.open[asked.top] & (asked.scope >= stage.scope_threshold) & ~stage.vetoed(asked.proba, asked.top)
    )


def _decide(policy: Policy, part: Part) -> tuple[Bools, Labels, Bools]:
    """Return the handled rows, the labels, and the rows that a cascade's first stage handles."""
    if not len(part):
        return np.zeros(0, bool), np.zeros(0, np.str_), np.zeros(0, bool)
    given = {view: part.vectors for view in policy.views if isinstance(view.embedder, Given)}
    seen = policy.score(part.texts, given)
    return seen.handled, policy.classes[seen.top], seen.handled & (seen.stage == 0)
