"""The teacher's agreement with itself, and the bound that follows for any surrogate.

Ask a teacher twice about one input x and it gives label l with probability p(l | x) each time. The two answers agree
with probability q = E[sum_l p(l | x)^2]; the best any surrogate can do is to give the likeliest label, and it then
agrees with the teacher on E[max_l p(l | x)]. As max p <= sqrt(sum p^2) and the root is concave, that is at most sqrt(q)
(Jensen), and at least q. Deferring helps only for inputs on which the teacher is inconsistent: of handled share c,
disagreements on the rest weigh at most 1 - c, so agreement alpha among the handled needs c <= sqrt(q) / alpha.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from tracer_serve.fit.groups import duplicate_groups
from tracer_serve.gate.binomial import lower_bounds
from tracer_serve.gate.wording import percent
from tracer_serve.types import Labels, Text

KEY = "teacher_noise"
"""Key of the estimate in the trace store."""


@dataclass(frozen=True, slots=True)
class TeacherNoise:
    """The teacher's agreement with itself.

    Parameters
    ----------
    asked : inputs with two answers
    agreed : on how many the answers are the same
    source : ``replay`` (asked again on purpose) or ``duplicates`` (the same text occurs in the traces twice)
    teacher : fingerprint of the teacher that was asked again; empty for duplicates
    failed : inputs to which it gave no label when asked again
    """

    asked: int
    agreed: int
    source: str = "replay"
    teacher: str = ""
    failed: int = 0

    @property
    def agreement(self) -> float:
        """The share that agreed."""
        return self.agreed / self.asked if self.asked else 1.0

    def interval(self, delta: float = 0.05) -> tuple[float, float]:
        """Return the exact two-sided interval (Clopper and Pearson) of the agreement at confidence 1 - delta.

        Examples
        --------
        >>> low, high = TeacherNoise(asked=200, agreed=180).interval()
        >>> round(low, 3), round(high, 3)
        (0.85, 0.938)
        """
        low = float(lower_bounds(self.agreed, self.asked, delta / 2))
        return low, 1.0 - float(lower_bounds(self.asked - self.agreed, self.asked, delta / 2))

    def ceiling(self, delta: float = 0.05) -> float:
        """Return what no surrogate can exceed in agreement on all traffic, at confidence 1 - delta."""
        return math.sqrt(self.interval(delta)[1])

    def forbids(self, alpha: float, delta: float = 0.05) -> bool:
        """Return whether alpha is above what any surrogate can reach on all traffic."""
        return alpha > self.ceiling(delta)

    def sentence(self, alpha: float) -> str:
        """Return the finding and its consequence for alpha, for people."""
        low, high = self.interval()
        found = (
            f"asked again, the teacher repeats {self.agreed:,} of {self.asked:,} labels"
            f" ({percent(self.agreement)}, 95 % interval {percent(low)} to {percent(high)})"
        )
        if self.forbids(alpha):
            share = self.ceiling() / alpha
            return (
                f"{found}: no surrogate can agree with it on more than {percent(self.ceiling())} of all traffic, so"
                f" alpha {alpha:g} leaves at most {percent(share)} to handle, and nothing where it wavers evenly"
            )
        return f"{found}; alpha {alpha:g} is within reach of a perfect surrogate"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any] | None) -> Self | None:
        """Read what `to_json` returned; None for None."""
        return None if value is None else cls(**value)


def duplicate_noise(texts: Sequence[Text], labels: Labels) -> TeacherNoise:
    """Return the agreement of the teacher over texts that it labelled twice: one pair of rows per repeated text."""
    first: dict[int, int] = {}
    paired: set[int] = set()
    agreed = 0
    for row, group in enumerate(duplicate_groups(texts).tolist()):
        if group not in first:
            first[group] = row
        elif group not in paired:
            paired.add(group)
            agreed += bool(labels[row] == labels[first[group]])
    return TeacherNoise(len(paired), agreed, "duplicates")
