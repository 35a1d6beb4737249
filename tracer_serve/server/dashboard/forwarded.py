"""Calls that were not recognised, for the dashboard: what they look like, and what to do about them."""

from typing import Any

from tracer_serve.serving.forwarded_calls import sample_of
from tracer_serve.storage.traces import TraceStore

ADVICE = {
    "unsupported_content": "only text is classified; nothing to do",
    "no_user_text": "only calls that end with a text of the user are classified; nothing to do",
    "earlier_turns": "if the turns belong to the question, write input: conversation; of fixed examples record"
    " one call and name it under forms: with request",
    "unknown_model": "if these calls are to be answered, name them under forms: with their model",
    "unknown_prompt": "if these calls are to be answered, record one of them and name it under forms: with request",
    "unknown_options": "if these calls are to be answered, name them under forms: with these options; fields beside the"
    " label need when_handled",
    "unknown_api": "the same question through another API: record one call and name it under forms: with request and"
    " same_as",
    "ambiguous": "several tasks have this form: remove it from all but one",
}
"""What to do about calls of each reason."""


def forwarded_of(store: TraceStore) -> list[dict[str, Any]]:
    """Return the kinds of forwarded calls, most frequent first, each with advice."""
    return [one | {"advice": ADVICE.get(one["reason"], "")} for one in sample_of(store)]
