"""Going live in steps: for whom a certified answer counts."""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Rollout:
    """Says whose certified answers are held back.

    Parameters
    ----------
    mode : ``observe`` holds all back, ``enforce`` none, ``canary`` all but those of a share of the users
    canary : that share
    task : its name; other tasks' canaries are other users

    Examples
    --------
    >>> Rollout("observe").holds_back("ann"), Rollout().holds_back("ann")
    (True, False)
    """

    mode: Literal["observe", "canary", "enforce"] = "enforce"
    canary: float = 1.0
    task: str = ""

    def holds_back(self, user: str | None) -> bool:
        """Return whether the teacher answers this user's requests, whatever is certified.

        A user is in or out for good, and one who is in stays in when the share grows. A request without a user is drawn
        by itself.
        """
        if self.mode != "canary":
            return self.mode == "observe"
        if user is None:
            return random.random() >= self.canary
        hashed = hashlib.sha256(f"{self.task}\n{user}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(hashed[:8]) >= self.canary * 2**64


ENFORCE = Rollout()
"""Holds nobody's back."""
