"""Verdicts on a batch of inputs, in columns: label, score and reason of each row."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from tracer_serve.policy.decision import CERTIFIED
from tracer_serve.types import Bools, Floats, Ints, Labels, Vectors, Verdict


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a policy, or one of its stages, finds on n inputs. Row i is a `Verdict`.

    Parameters
    ----------
    classes : the labels that `top` and the columns of `proba` index, shape (k,)
    proba : probabilities of the stage that was asked last, shape (n, k)
    top : the most probable class, shape (n,)
    score : the acceptor's score on the policy's path, shape (n,)
    scope : scope score of that stage, shape (n,)
    reason : as in `policy.decision.certificate_reasons`, shape (n,)
    stage : number of the stage that was asked last, from 0, shape (n,)
    embed_s : time spent in embedders, seconds
    """

    classes: Labels
    proba: Vectors
    top: Ints
    score: Floats
    scope: Floats
    reason: Labels
    stage: Ints
    embed_s: float = 0.0

    @property
    def handled(self) -> Bools:
        """Rows that the surrogate answers, shape (n,)."""
        handled: Bools = self.reason == CERTIFIED
        return handled

    def updated(self, rows: Ints, later: "Verdicts") -> Self:
        """Return a copy in which a later stage's verdicts replace those of some rows.

        Parameters
        ----------
        rows : indices of the m rows of `later`, shape (m,)
        """
        columns: dict[str, Any] = {}
        for name in ("proba", "top", "score", "scope", "reason", "stage"):
            columns[name] = np.array(getattr(self, name))
            columns[name][rows] = getattr(later, name)
        return replace(self, **columns)

    def rows(self) -> list[Verdict]:
        """Return one verdict per row."""
        runner_up = np.argsort(self.proba, axis=1)[:, -2] if len(self.classes) > 1 else None
        handled = self.handled
        return [
            Verdict(
                label=str(self.classes[top]),
                score=float(self.score[i]),
                handled=bool(handled[i]),
                reason=str(self.reason[i]),
                runner_up=None if runner_up is None else str(self.classes[runner_up[i]]),
                proba=self.proba[i],
                stage=int(self.stage[i]),
            )
            for i, top in enumerate(self.top)
        ]
