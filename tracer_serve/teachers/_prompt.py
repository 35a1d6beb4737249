"""A prompt template and a text to the messages of a chat completion."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tracer_serve.errors import PluginError
from tracer_serve.records import Text

CLOSED = "Classify the text. Answer with exactly one of these labels and nothing else: {labels}"
DESCRIBED = "Classify the text. Answer with exactly one of these labels and nothing else.\n{descriptions}"
OPEN = "Classify the text. Answer with one short label and nothing else."
_SLOT = re.compile(r"\{(?P<literal>\{\w+\})\}|\{(?P<name>\w+)\}")
_KNOWN = ("labels", "descriptions", "text")


class Prompt:
    """A template with ``{labels}``, ``{descriptions}`` and ``{text}``; ``{{word}}`` stands for a literal ``{word}``.

    With ``{text}`` the whole is one user message; without it the template is the system message and the text the user
    message. A pair is sent as two labelled parts.

    Parameters
    ----------
    template : None takes a plain one that suits the label set
    labels : in the order in which the model sees them
    descriptions : what each label means

    Raises
    ------
    PluginError
        Where the template has a slot that nothing fills.

    Examples
    --------
    >>> Prompt("One of {labels}: {text}", ["no", "yes"], {}).messages("Is it?")
    [{'role': 'user', 'content': 'One of no, yes: Is it?'}]
    """

    def __init__(self, template: str | None, labels: Sequence[str], descriptions: Mapping[str, str]) -> None:
        default = DESCRIBED if descriptions else CLOSED if labels else OPEN
        self.template = default if template is None else template
        for match in _SLOT.finditer(self.template):
            if match["name"] and match["name"] not in _KNOWN:
                raise PluginError(
                    f"parameter 'prompt': nothing fills {match[0]}; {{labels}}, {{descriptions}}, {{text}} are filled,"
                    f" and {{{match[0]}}} stands for a literal {match[0]}"
                )
        self.takes_text = any(match["name"] == "text" for match in _SLOT.finditer(self.template))
        self._filling = {
            "labels": ", ".join(labels),
            "descriptions": "\n".join(f"- {x}: {descriptions[x]}" if x in descriptions else f"- {x}" for x in labels),
        }

    def messages(self, text: Text) -> list[dict[str, Any]]:
        """Return the messages that ask for the label of a text or a pair."""
        body = text if isinstance(text, str) else f"Text 1:\n{text[0]}\n\nText 2:\n{text[1]}"
        filling = {**self._filling, "text": body}
        # one pass: a "{labels}" inside the text stays what it is
        filled = _SLOT.sub(lambda match: match["literal"] or filling[match["name"]], self.template)
        if self.takes_text:
            return [{"role": "user", "content": filled}]
        return [{"role": "system", "content": filled}, {"role": "user", "content": body}]


def response_format(labels: Sequence[str]) -> dict[str, Any]:
    """Return the structured-output request for ``{"label": one of the labels}``."""
    label = {"type": "string", "enum": list(labels)} if labels else {"type": "string"}
    schema = {"type": "object", "properties": {"label": label}, "required": ["label"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": schema}}
