"""Rollout of a version: the share of users for whom certified answers count."""

import hashlib
import random
from dataclasses import dataclass

from tracer_serve.policy.decision import Mode


@dataclass(frozen=True, slots=True)
class Rollout:
    """Configure for which users certified answers count.

    Parameters
    ----------
    mode : as in `policy.decision.Conditions`
    canary : share of the users in the canary
    task : the task's name; canaries of different tasks are independent draws of users

    Examples
    --------
    >>> Rollout("canary", 0.0).in_canary("ann"), Rollout("canary", 1.0).in_canary("ann")
    (False, True)
    """

    mode: Mode = "enforce"
    canary: float = 1.0
    task: str = ""

    def in_canary(self, user: str | None) -> bool:
        """Return whether a request belongs to the canary.

        A hash of the user decides, so users stay in while the share grows. A request without a user is drawn at random.
        """
        if self.mode != "canary":
            return True
        if user is None:
            return random.random() < self.canary
        hashed = hashlib.sha256(f"{self.task}\n{user}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(hashed[:8]) < self.canary * 2**64


ENFORCE = Rollout()
"""Every certified answer counts."""
