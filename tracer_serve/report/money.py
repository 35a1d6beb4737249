"""What the teacher costs and the surrogate saves per 1,000 requests; tokens are estimated from lengths of texts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tracer_serve.load import Task
from tracer_serve.records import Labels, Text
from tracer_serve.report.seen import Seen
from tracer_serve.views import length_of

_CHARACTERS_PER_TOKEN = 4.0
_ENVELOPE_TOKENS = 8.0  # what a chat API adds around two messages
_LISTED = "Classify the text. Answer with exactly one of these labels and nothing else: {labels}"
_DESCRIBED = "Classify the text. Answer with exactly one of these labels and nothing else.\n{descriptions}"


def estimate_call(
    task: Task, texts: Sequence[Text], labels: Labels, known: Iterable[str], price: Mapping[str, Any]
) -> tuple[float, float, float]:
    """Estimate prompt tokens, completion tokens and price of a call, from the lengths of prompt, texts and labels.

    Parameters
    ----------
    task : says how its teacher asks
    labels : what the teacher answered, shape (n,)
    known : the labels of an open task; a closed one's prompt lists those of the spec, in use or not
    price : ``prompt_per_1m``, ``completion_per_1m``
    """
    characters = _characters_around(task, known) + float(np.mean([length_of(text) for text in texts]))
    prompt = characters / _CHARACTERS_PER_TOKEN + _ENVELOPE_TOKENS
    completion = float(np.char.str_len(labels).mean()) / _CHARACTERS_PER_TOKEN + 1.0
    each = (prompt * float(price["prompt_per_1m"]) + completion * float(price["completion_per_1m"])) / 1e6
    return prompt, completion, each


def _characters_around(task: Task, known: Iterable[str]) -> int:
    """Return how long a prompt of the teacher is beside the text: its words, the labels, what is said of them."""
    spec = task.spec
    described = spec.labels if isinstance(spec.labels, dict) else {}
    labels = spec.label_names or tuple(known)
    template = str(spec.teacher.params.get("prompt") or (_DESCRIBED if described else _LISTED))
    said = "\n".join(f"- {label}: {described[label]}" if label in described else f"- {label}" for label in labels)
    return len(template.replace("{labels}", ", ".join(labels)).replace("{descriptions}", said).replace("{text}", ""))


def money_of(task: Task, seen: Seen) -> dict[str, Any] | None:
    """Return the cost of 1,000 requests without the surrogate and what this version saves of it, net of audits.

    None where the spec states no price.
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
