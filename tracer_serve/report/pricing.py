"""Estimate what the teacher costs and the surrogate saves; tokens are estimated from text lengths."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tracer_serve.components.teachers._prompt import Prompt
from tracer_serve.config.load import Task
from tracer_serve.errors import PluginError
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.types import Labels, Text

_CHARACTERS_PER_TOKEN = 4.0
_ENVELOPE_TOKENS = 8.0  # what a chat API adds around two messages


def estimate_call(
    task: Task, texts: Sequence[Text], labels: Labels, known: Iterable[str], price: Mapping[str, Any]
) -> tuple[float, float, float]:
    """Estimate prompt tokens, completion tokens and price of a call, from the lengths of prompt, texts and labels.

    Parameters
    ----------
    task : the task, for the teacher's prompt
    labels : the teacher's answers, shape (n,)
    known : labels that an open task's prompt offers; a closed task's prompt lists the labels of the spec
    price : ``prompt_per_1m``, ``completion_per_1m``
    """
    asked = _prompt_of(task, list(known))
    characters = [sum(len(message["content"]) for message in asked.messages(text)) for text in texts]
    prompt = float(np.mean(characters)) / _CHARACTERS_PER_TOKEN + _ENVELOPE_TOKENS
    completion = float(np.char.str_len(labels).mean()) / _CHARACTERS_PER_TOKEN + 1.0
    each = (prompt * float(price["prompt_per_1m"]) + completion * float(price["completion_per_1m"])) / 1e6
    return prompt, completion, each


def _prompt_of(task: Task, known: Sequence[str]) -> Prompt:
    """Return the prompt that the built-in teachers send; the default one for a plugin's own template language."""
    described = task.spec.labels if isinstance(task.spec.labels, dict) else {}
    template = task.spec.teacher.params.get("prompt")
    try:
        return Prompt(template, task.spec.label_names, described, known, task.spec.answer_fields)
    except (PluginError, TypeError):
        return Prompt(None, task.spec.label_names, described, known, task.spec.answer_fields)


def money_of(task: Task, seen: CalibrationView) -> dict[str, Any] | None:
    """Return the cost of 1,000 requests without the surrogate and what this version saves of it, net of audits.

    None if the spec has no price.
    """
    price = task.spec.teacher.params.get("price")
    if not isinstance(price, Mapping) or not {"prompt_per_1m", "completion_per_1m"} <= price.keys():
        return None
    given = seen.classes[seen.truth]
    prompt, completion, each = estimate_call(task, seen.texts, given, seen.classes.tolist(), price)
    saved = seen.certificate.handled_share * (1.0 - task.spec.traces.audit_share)
    return {
        "currency": str(price.get("currency", "USD")),
        "as_of": None if price.get("as_of") is None else str(price["as_of"]),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "all_teacher_per_1000": 1000 * each,
        "saved_per_1000": 1000 * each * saved,
        "method": "tokens are estimated from the lengths of prompt, texts and labels, four characters each",
    }


@dataclass(frozen=True, slots=True)
class CallPrice:
    """Price of a teacher call.

    Parameters
    ----------
    per_call : in `currency`
    basis : how the price was determined, in words
    calls_per_day : None if unknown; savings are then per 1,000 requests
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
        task : the task, for the teacher's prompt
        price : ``prompt_per_1m``, ``completion_per_1m``, perhaps ``currency``
        """
        prompt, completion, each = estimate_call(task, texts, labels, np.unique(labels).tolist(), price)
        basis = f"about {prompt:.0f} prompt and {completion:.0f} completion tokens a call, four characters a token"
        return cls(each, basis, str(price.get("currency", "USD")))

    def saved(self, share: float) -> float:
        """Return the savings per day, or per 1,000 requests, for a share of teacher calls saved."""
        return share * self.per_call * (1000.0 if self.calls_per_day is None else self.calls_per_day)

    @property
    def span(self) -> str:
        """Return the unit of `saved`."""
        return "1,000 requests" if self.calls_per_day is None else "day"
