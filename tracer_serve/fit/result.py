"""The result of a fit, for the version and its report."""

from dataclasses import dataclass

from tracer_serve.fit.calibration import Answered, Calibration
from tracer_serve.fit.comparison import CandidateResult
from tracer_serve.fit.cross_fit import Votes
from tracer_serve.gate.certificate import Certificate
from tracer_serve.policy.policy import Policy
from tracer_serve.types import Ints, Vectors


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit's outcome: the policy to serve, its calibration set, and all candidates.

    Parameters
    ----------
    vectors : of the calibration rows by the last stage's embedder, float32, shape (n, d)
    trained : the rows of the fit that the served policy has learnt from, which its indexes count, shape (t,)
    votes : what the members of the last stage's blend say of the calibration rows, out of fold; None with ``strict``
    """

    policy: Policy
    calibration: Calibration
    vectors: Vectors
    candidates: tuple[CandidateResult, ...]
    trained: Ints
    votes: Votes | None = None

    @property
    def certificate(self) -> Certificate:
        """The certificate."""
        return self.policy.certificate

    @property
    def answered(self) -> Answered:
        """The calibration rows as answered by the policy."""
        return self.calibration.answered(self.certificate)
