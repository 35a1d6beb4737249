"""What the teacher costs and the surrogate saves per 1,000 requests; tokens are estimated from lengths of texts."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tracer_serve.load import Task
from tracer_serve.report.seen import Seen

_CHARACTERS_PER_TOKEN = 4.0
_ENVELOPE_TOKENS = 8.0  # what a chat API adds around two messages
_LISTED = "Classify the text. Answer with exactly one of these labels and nothing else: {labels}"
_DESCRIBED = "Classify the text. Answer with exactly one of these labels and nothing else.\n{descriptions}"


def characters_around(task: Task, seen: Iterable[str]) -> int:
    """Return how long a prompt of the teacher is beside the text: its words, the labels, what is said of them.

    Parameters
    ----------
    seen : the labels of an open task; a closed one's prompt lists those of the spec, in use or not
    """
    spec = task.spec
    described = spec.labels if isinstance(spec.labels, dict) else {}
    labels = spec.label_names or tuple(seen)
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
    labels = [str(label) for label in seen.classes]
    around = characters_around(task, labels)
    lengths = [len(t) if isinstance(t, str) else len(t[0]) + len(t[1]) for t in seen.texts]
    prompt = (around + float(np.mean(lengths))) / _CHARACTERS_PER_TOKEN + _ENVELOPE_TOKENS
    completion = float(np.mean([len(labels[i]) for i in seen.truth])) / _CHARACTERS_PER_TOKEN + 1.0
    each = (prompt * float(price["prompt_per_1m"]) + completion * float(price["completion_per_1m"])) / 1e6
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
