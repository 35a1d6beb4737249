"""Learn the probability of agreement from probabilities, neighbours and a blend's members (gate.md, section 4)."""

from typing import Final, Self

import numpy as np

from tracer_serve.components.acceptors._proba import TINY, logit, top_two
from tracer_serve.components.registry import acceptors
from tracer_serve.gate.logistic_regression import fit_logistic, sigmoid
from tracer_serve.types import Bools, Evidence, Floats, Neighbours, Vectors

_TOP1: Final = 0  # column of the largest probability, the score of the fallback


@acceptors.register("logistic")
class Logistic:
    """Logistic regression of agreement; the score is the predicted probability that the teacher agrees.

    Parameters
    ----------
    neighbours : number of nearest training rows used
    l2 : ridge penalty per standardised weight, in units of the summed log loss
    min_disagreements : with fewer disagreements (or agreements) to learn from, the score is the largest probability

    Notes
    -----
    Neighbours and a second model add information. Summaries of one model's probabilities are interchangeable, and more
    flexible learners overfit the few disagreements. Each member contributes its log odds for the blend's label, which
    are more informative than its probability; whether it agrees adds nothing.
    """

    def __init__(self, neighbours: int = 10, l2: float = 1.0, min_disagreements: int = 50) -> None:
        self.neighbours, self.l2, self.min_disagreements = neighbours, l2, min_disagreements
        self.mean: Floats = np.empty(0)
        self.scale: Floats = np.empty(0)
        self.weights: Floats = np.empty(0)
        self.intercept = 0.0

    @property
    def learnt(self) -> bool:
        """Return whether the fit had enough disagreements; if not, the score does not depend on labels."""
        return len(self.weights) > 0

    def features(self, evidence: Evidence) -> Vectors:
        """Return shape (n, 11 + m) for m members; a row without usable probabilities is NaN."""
        top1, top2 = top_two(evidence.proba)
        predicted = np.argmax(evidence.proba, axis=1)
        inside = np.maximum(evidence.proba, TINY)
        odds, *member_odds = logit(np.array([top1, *evidence.members[:, np.arange(len(top1)), predicted]]))
        columns = [
            top1,
            top2,
            top1 - top2,
            -(inside * np.log(inside)).sum(axis=1),
            odds,
            np.log(np.maximum(top1, TINY) / np.maximum(top2, TINY)),
            *_near(evidence.neighbours, predicted, self.neighbours),
            *member_odds,
        ]
        table = np.ascontiguousarray(np.array(columns, np.float32).T)
        table[~np.isfinite(table).all(axis=1)] = np.nan
        return table

    def fit(self, features: Vectors, agreed: Bools) -> Self:
        """Fit on features (n, f) and whether the teacher agreed (n,); rows with NaN are skipped."""
        known = np.isfinite(features).all(axis=1)
        table, target = features[known].astype(np.float64), agreed[known]
        self.weights = np.empty(0)
        if min(target.sum(), len(target) - target.sum()) >= self.min_disagreements:
            self.mean, spread = table.mean(axis=0), table.std(axis=0)
            self.scale = np.where(spread > TINY, spread, np.inf)  # a constant column carries no information
            design = np.column_stack([np.ones(len(table)), (table - self.mean) / self.scale])
            weights = fit_logistic(design, target, np.array([TINY, *np.full(table.shape[1], self.l2)]))
            self.intercept, self.weights = float(weights[0]), weights[1:]
        return self

    def score(self, features: Vectors) -> Floats:
        """Return P(teacher agrees) of each row, NaN for rows with a NaN feature."""
        if not len(self.weights):
            return np.where(np.isfinite(features).all(axis=1), features[:, _TOP1], np.nan)
        linear = (features - self.mean) / self.scale @ self.weights + self.intercept
        return sigmoid(linear)


def _near(neighbours: Neighbours, predicted: np.ndarray, count: int) -> list[Floats]:
    """Return five columns on the `count` nearest rows; missing rows (-inf) count as absent, not as dissimilar."""
    similarity = neighbours.similarity[:, :count]
    there = np.isfinite(similarity)
    same = there & (neighbours.label[:, :count] == predicted[:, None])
    # a row outside the list is at most as similar as the farthest one in it
    floor = np.where(there, similarity, np.inf).min(axis=1, initial=1.0)
    found = np.maximum(there.sum(axis=1), 1)
    best_same = np.where(same, similarity, floor[:, None]).max(axis=1, initial=-1.0)
    best_other = np.where(there & ~same, similarity, floor[:, None]).max(axis=1, initial=-1.0)
    mean = np.where(there, similarity, 0).sum(axis=1) / found
    return [same.sum(axis=1) / found, np.maximum(best_same, best_other), mean, best_same, best_same - best_other]
