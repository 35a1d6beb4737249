"""What the teacher costs per call, from what is known: a price per call, prices of tokens, or costs in the traces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tracer_serve.load import Task
from tracer_serve.records import Labels, Text
from tracer_serve.report.money import estimate_call


@dataclass(frozen=True, slots=True)
class Price:
    """What a call costs.

    Parameters
    ----------
    per_call : in `currency`
    basis : how it is known, in words
    calls_per_day : None where it was not said; money is then per 1,000 requests
    """

    per_call: float
    basis: str
    currency: str = "USD"
    calls_per_day: float | None = None

    @classmethod
    def of_tokens(cls, task: Task, texts: Sequence[Text], labels: Labels, price: Mapping[str, Any]) -> Self:
        """Estimate a call from the lengths of prompt, texts and labels, four characters a token.

        Parameters
        ----------
        task : says how its teacher asks
        price : ``prompt_per_1m``, ``completion_per_1m``, perhaps ``currency``
        """
        prompt, completion, each = estimate_call(task, texts, labels, np.unique(labels).tolist(), price)
        basis = f"about {prompt:.0f} prompt and {completion:.0f} completion tokens a call, four characters a token"
        return cls(each, basis, str(price.get("currency", "USD")))

    def saved(self, share: float) -> float:
        """Return what is saved a day, or per 1,000 requests, if the share of teacher calls is."""
        return share * self.per_call * (1000.0 if self.calls_per_day is None else self.calls_per_day)

    @property
    def span(self) -> str:
        """What `saved` is per."""
        return "1,000 requests" if self.calls_per_day is None else "day"
