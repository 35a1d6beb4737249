"""Choose the candidate to certify by cross-fitted coverage at alpha.

The choice is cross-fitted too: the rows of a fold are scored by the candidate that the *other* folds prefer. A row's
label therefore never helps to choose the candidate that speaks for it (gate.md, section 2). Rows of different folds
still depend on each other through the choice, for which competing surrogates share delta (`fit.certificate.gate_of`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from tracer_serve.fit.candidate import Candidate, CandidateStage, Paths, reach, reached
from tracer_serve.fit.cross_fit import OutOfFold
from tracer_serve.fit.cross_score import translate
from tracer_serve.gate.fixed_sequence import path
from tracer_serve.types import Bools, Ints

_WORTH_A_STAGE = 2.0  # a first stage must be that much cheaper to ask than the second
_KEPT = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)  # shares of the rows that a first stage may keep
_TIE = 0.005  # one step of the yardstick


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen candidate, and how rows fare under the cross-fitted choice.

    Parameters
    ----------
    candidate : preferred on all rows; this one is refitted and served
    paths : each row as the candidate that the other folds prefer sees it, scores on the scale of `candidate`
    """

    candidate: Candidate
    paths: Paths


@dataclass(slots=True)
class Chooser:
    """Compare the parts alone and, if enabled, as cascades of a cheap one and a stronger one.

    Parameters
    ----------
    parts : every surrogate with every acceptor
    fold : fold of each row, shape (n,)
    alpha, delta : the promise
    cascade : whether the family is asked for
    keep : share of the rows that a cascade's scope guards let pass together
    """

    parts: Sequence[CandidateStage]
    fold: Ints
    alpha: float
    delta: float
    cascade: bool = False
    keep: float = 1.0
    _single: dict[int, Candidate] = field(default_factory=dict)
    _cascades: dict[tuple[int, int, float], Candidate] = field(default_factory=dict)
    _shown: dict[tuple[int, int], Candidate] = field(default_factory=dict)

    def choose(self, fair: Bools) -> Choice:
        """Choose on the fair rows, (n,), and cross-fit that choice."""
        winner = self.best(fair)
        speaker = np.zeros(len(self.fold), np.int64)
        local = [winner]
        for held_out in np.unique(self.fold):
            found = self.best(fair & (self.fold != held_out))
            if found not in local:
                local.append(found)
            speaker[self.fold == held_out] = local.index(found)
        return Choice(winner, _spoken(winner, local, speaker))

    def candidates(self) -> list[Candidate]:
        """Return every candidate looked at so far, of each pair the cascade that was preferred first."""
        return [*self._single.values(), *self._shown.values()]

    def best(self, rows: Bools) -> Candidate:
        """Return the best candidate on these rows: a cascade that reaches no less, else the best part.

        Of parts that reach the same it is the one that agrees more often on all rows.
        """
        singles = [self._single.setdefault(i, Candidate.single(part)) for i, part in enumerate(self.parts)]
        judged = [(self.reach(one, rows), _agreement(one, rows)) for one in singles]
        strong = max(range(len(singles)), key=judged.__getitem__)
        pair = self._pair(judged) if self.cascade else None
        if pair is None:
            return singles[strong]
        return self._cascade(pair, rows, judged[strong][0] - _TIE) or singles[strong]

    def reach(self, candidate: Candidate, rows: Bools) -> float:
        """Return the yardstick of a candidate on some rows."""
        return reach(candidate.paths.take(rows), self.alpha, self.delta)

    def _cascade(self, pair: tuple[int, int], rows: Bools, least: float) -> Candidate | None:
        """Return the cascade of a pair that reaches so much and asks the second part least often.

        None if each would cost more than the second part alone: a first stage answers nothing if a sure second one
        answers all before the threshold comes down to it.
        """
        first, second = (self.parts[i] for i in pair)
        (alone,), (before, after) = prices([second.oof]), prices([first.oof, second.oof])
        most = (sum(before) + sum(after) - sum(alone)) / max(sum(after), 1e-12)  # answers that pay for its asking
        best = tried = None
        for share in _KEPT:
            if share <= most:
                break
            key = (*pair, share)
            if key not in self._cascades:
                self._cascades[key] = Candidate.cascade(first, second, self.fold, kept=share, keep=self.keep)
            tried = self._cascades[key]
            far, answered = reached(tried.paths.take(rows), self.alpha, self.delta)
            if far >= least and answered > most:
                best, most = tried, answered
        if tried is not None:
            self._shown.setdefault(pair, best or tried)
        return best

    def _pair(self, judged: list[tuple[float, float]]) -> tuple[int, int] | None:
        """Return the best part, and before it the one that makes a request cheapest of those that cost much less.

        So few cascades are compared instead of all pairs. The share that the first keeps is estimated from its reach.
        """
        usable = [i for i, part in enumerate(self.parts) if part.acceptor is not None]
        if not usable:
            return None
        second = max(usable, key=judged.__getitem__)

        def cost(i: int) -> float:
            before, after = prices([self.parts[i].oof, self.parts[second].oof])
            return sum(before) + (1.0 - judged[i][0]) * sum(after)

        cheap = [i for i in usable if self._spares(i, second) and judged[i][0] > 0]
        return (min(cheap, key=lambda i: (cost(i), -judged[i][1])), second) if cheap else None

    def _spares(self, first: int, second: int) -> bool:
        """Return whether a part costs much less than another, including its embedding if they do not share it."""
        one, other = self.parts[first].oof, self.parts[second].oof
        apart = one.view != other.view
        return one.cpu_ms + apart * one.embed_ms <= (other.cpu_ms + apart * other.embed_ms) / _WORTH_A_STAGE


def prices(stages: Sequence[OutOfFold]) -> list[tuple[float, float]]:
    """Return what each stage of a cascade adds to a row that reaches it, ms: predicting, and embedding if it is new."""
    views = [stage.view for stage in stages]
    return [(one.cpu_ms, one.embed_ms * (one.view not in views[:i])) for i, one in enumerate(stages)]


def _agreement(candidate: Candidate, rows: Bools) -> float:
    agreed = candidate.paths.agreed[-1, rows]
    return float(agreed.mean()) if len(agreed) else 0.0


def _spoken(winner: Candidate, local: Sequence[Candidate], speaker: Ints) -> Paths:
    """Return each row as its own candidate sees it; stages that a candidate lacks never score."""
    stages = max(len(candidate.parts) for candidate in local)
    whole = [_padded(candidate, stages, winner) for candidate in local]
    if len(whole) == 1:
        return whole[0]

    def pick(name: str) -> Any:
        values = np.stack([getattr(one, name) for one in whole])
        return np.moveaxis(values, -1, 0)[np.arange(len(speaker)), speaker].T

    return Paths(**{part.name: pick(part.name) for part in fields(Paths)})


def _padded(candidate: Candidate, stages: int, winner: Candidate) -> Paths:
    """Return a candidate's paths on the winner's scale; stages that it lacks come first, and never answer."""
    paths, score = candidate.paths, candidate.paths.score
    if candidate is not winner:
        score = translate(score, path(score), path(winner.paths.score))
    missing = ((stages - len(score), 0), (0, 0))
    padded = {part.name: np.pad(getattr(paths, part.name), missing) for part in fields(Paths)}
    return Paths(**padded | {"score": np.pad(score, missing, constant_values=np.nan)})
