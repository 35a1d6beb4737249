"""Monitor live agreement by an e-process on audits, valid at every moment (gate.md, section 6).

While agreement is at least alpha the evidence M is a nonnegative supermartingale that starts at 1, so by Ville's
inequality P(M ever reaches 1/delta) <= delta, however often one looks. New starts of the bet are funded from a budget
of 1, so that a drop after a long calm is still found. All in logs: M overflows.

A new version inherits the bets of the one before it (`hand_over`): each audit multiplies them by a factor whose mean is
at most 1 while the audited version keeps the promise. A new monitor per version would spend delta again each night.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from tracer_serve.gate.binomial import n_min
from tracer_serve.gate.live_proof import log_proof
from tracer_serve.types import Bools, Floats

_MULTIPLES = (1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0)
_LARGEST_ERROR = 0.98
_RESTART_EVERY = 25


@dataclass(frozen=True, slots=True)
class MonitorState:
    """State of the monitor, stored in the trace store as JSON.

    Parameters
    ----------
    alpha, delta : required agreement; probability of ever a false alarm
    seen, agreements : audits of this version so far, and how many of them agreed
    log_bets : log S_q of each alternative; empty before the first audit
    alarmed_at : audits of the version when the evidence first reached 1/delta; None before that
    proved_at : audits of the version after which its agreement was proved to be above alpha (`gate.live_proof`)
    before : audits of the versions before it
    """

    alpha: float
    delta: float
    seen: int = 0
    agreements: int = 0
    log_bets: tuple[float, ...] = ()
    alarmed_at: int | None = None
    before: int = 0
    proved_at: int | None = None

    @property
    def log_evidence(self) -> float:
        """Log of the evidence M."""
        spare = _log_spare(self.before + self.seen)
        return float(np.logaddexp(np.logaddexp.reduce(self.log_bets), spare)) if self.log_bets else spare

    @property
    def evidence(self) -> float:
        """Evidence M: 1 at the start, an alarm from 1/delta on; inf if it overflows."""
        return math.exp(min(self.log_evidence, 709.0)) if self.log_evidence < 709.0 else math.inf  # noqa: PLR2004

    @property
    def alarm(self) -> bool:
        """Whether the evidence has ever reached 1/delta; an alarm stays until a new monitor starts."""
        return self.alarmed_at is not None

    @property
    def boosted(self) -> bool:
        """Whether the audit rate should be raised: the bets are worth at least half of the stake that is left.

        A rate that depends only on the past does not change the probability of a false alarm. The criterion M >= 1
        would be simpler, but after a long calm most of M is spent, and M reaches 1 only shortly before the alarm.
        """
        spare = _log_spare(self.before + self.seen)
        return bool(self.log_bets) and float(np.logaddexp.reduce(self.log_bets)) >= spare - math.log(2.0)

    @property
    def refuted(self) -> bool:
        """Whether at least as many audits as a certificate needs agree on less than alpha; alone this is no alarm."""
        return self.seen >= n_min(self.alpha, self.delta) and self.agreements < self.alpha * self.seen

    def to_json(self) -> dict[str, Any]:
        """Return the state as plain JSON values."""
        return asdict(self) | {"log_bets": list(self.log_bets)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Restore the state from `to_json`."""
        return cls(**(values | {"log_bets": tuple(values["log_bets"])}))


def update(state: MonitorState, agree: bool) -> MonitorState:
    """Return the state after one more audit of the live version; audits come in their order.

    Examples
    --------
    >>> state = MonitorState(alpha=0.95, delta=0.05)
    >>> for _ in range(6):
    ...     state = update(state, agree=False)
    >>> state.alarmed_at
    3
    """
    bets = np.asarray(state.log_bets or np.full(len(alternatives(state.alpha)), -np.inf))
    seen = state.seen + 1
    bets = advance(bets, state.before + seen, np.asarray(agree), state.alpha)
    after = replace(
        state, seen=seen, agreements=state.agreements + bool(agree), log_bets=tuple(float(bet) for bet in bets)
    )
    if state.proved_at is None and log_proof(after.agreements, seen, state.alpha) >= -math.log(state.delta):
        after = replace(after, proved_at=seen)
    crossed = after.log_evidence >= -math.log(state.delta)
    return replace(after, alarmed_at=seen) if crossed and not state.alarm else after


def hand_over(state: MonitorState, alpha: float, delta: float) -> MonitorState:
    """Return the state for a new version: its audits count from 0, the evidence is kept.

    If alpha changes, so do the alternatives; the evidence is spread evenly over the new ones.

    Examples
    --------
    >>> state = update(MonitorState(alpha=0.95, delta=0.05), agree=False)
    >>> later = hand_over(state, alpha=0.9, delta=0.05)
    >>> later.seen, later.before, abs(later.evidence - state.evidence) < 1e-9
    (0, 1, True)
    """
    bets = state.log_bets
    if bets and alpha != state.alpha:
        number = len(alternatives(alpha))
        bets = (float(np.logaddexp.reduce(bets)) - math.log(number),) * number
    fresh = replace(state, alpha=alpha, delta=delta, log_bets=bets, seen=0, agreements=0)
    return replace(fresh, before=state.before + state.seen, proved_at=None)


def alternatives(alpha: float) -> Floats:
    """Return the error rates of the bets: multiples of the tolerated one, at most .98, without repetition."""
    return np.unique(np.minimum(_LARGEST_ERROR, (1.0 - alpha) * np.array(_MULTIPLES)))


def advance(log_bets: Floats, number: int, agree: Bools, alpha: float) -> Floats:
    """Return the bets (..., q) after audit `number` (from 1), whose outcomes are `agree` (...)."""
    error = alternatives(alpha)
    right, wrong = np.log((1.0 - error) / alpha), np.log(error / (1.0 - alpha))
    if number % _RESTART_EVERY == 1:
        weight = math.exp(_log_spare(number - 1)) - math.exp(_log_spare(number))
        log_bets = np.logaddexp(log_bets, math.log(weight / len(error)))
    moved: Floats = log_bets + np.where(agree[..., None], right, wrong)
    return moved


def log_evidence(log_bets: Floats, number: int) -> Floats:
    """Return log M of bets (..., q) after `number` audits, shape (...)."""
    total: Floats = np.logaddexp(np.logaddexp.reduce(log_bets, axis=-1), _log_spare(number))
    return total


def anytime_lower_bound(k: int, n: int, delta: float) -> float:
    """Return a lower bound of a constant agreement that holds at all n at once with probability 1 - delta.

    Robbins' mixture of likelihood ratios, with a uniform prior over the agreements above the one that is tested: for
    agreement at most p it is a nonnegative supermartingale from 1, and the bound is the least p not yet refuted.

    Parameters
    ----------
    k, n : agreements and audits so far, of one version
    delta : probability that the bound is ever above the true agreement, as long as that does not change

    Examples
    --------
    >>> round(anytime_lower_bound(490, 500, 0.05), 3)
    0.957
    """
    low, high = 0.0, k / n if n else 0.0
    for _ in range(50):
        middle = (low + high) / 2
        refuted = middle > 0.0 and _log_mixture(middle, k, n) >= -math.log(delta)
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _log_mixture(p: float, k: int, n: int) -> float:
    """Return log of the mean likelihood ratio of agreements uniform in [p, 1] against p."""
    from scipy.special import betainc, betaln  # noqa: PLC0415  # saves a third of a second at the start

    tail = 1.0 - float(betainc(k + 1, n - k + 1, p))  # p <= k/n, so the tail is near 1/2 or more: no cancellation
    likelihood = k * math.log(p) + (n - k) * math.log1p(-p)
    return float(betaln(k + 1, n - k + 1)) + math.log(tail) - math.log1p(-p) - likelihood


def _log_spare(number: int) -> float:
    """Return the log of the stake that is left after some audits: 1/log2(j + 2) after j restarts (telescoping sum)."""
    return -math.log(math.log2(-(-number // _RESTART_EVERY) + 2))
