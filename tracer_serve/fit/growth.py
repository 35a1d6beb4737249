"""Whether cheap candidates still grow with the traces: the best of them once more, on half of the traces."""

from dataclasses import dataclass

_GAIN = 0.1  # share of what they defer that twice the traces must spare, or they have plateaued


@dataclass(frozen=True, slots=True)
class Growth:
    """A learning curve of two points; the report's has more (`report.plateau`).

    Parameters
    ----------
    half, whole : share of traffic that the candidate defers with half of the traces, and with all of them

    Examples
    --------
    >>> curve = Growth(half=0.16, whole=0.08)
    >>> curve.at_twice, curve.plateaued
    (0.04, False)
    """

    half: float
    whole: float

    @property
    def at_twice(self) -> float:
        """The share that twice as many traces would leave, by the power law through both points."""
        return self.whole * min(1.0, self.whole / self.half) if self.half > 0 else self.whole

    @property
    def plateaued(self) -> bool:
        """Whether twice the traces would spare next to nothing of it."""
        return self.whole - self.at_twice < _GAIN * self.whole

    def __str__(self) -> str:
        return (
            f"with half of the traces they deferred {self.half:.1%}, with twice as many it would be {self.at_twice:.1%}"
        )
