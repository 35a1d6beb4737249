"""A prompt template and a text to the messages of a chat completion."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tracer_serve.errors import PluginError
from tracer_serve.types import Text

CLOSED = "Classify the text. Answer with exactly one of these labels and nothing else: {labels}"
DESCRIBED = "Classify the text. Answer with exactly one of these labels and nothing else.\n{descriptions}"
OPEN = "Classify the text. Answer with one short label and nothing else."
OFFERED = "Classify the text. Answer with one short label and nothing else: {labels}"
_MOST = 200  # labels offered in an open task: a prompt has to stay a prompt
_RECURS = 3  # answers after which a label is offered: a slip of the teacher is not held out to it again
_SLOT = re.compile(r"\{(?P<literal>\{\w+\})\}|\{(?P<name>\w+)\}")
_KNOWN = ("labels", "descriptions", "text")


class Prompt:
    """A template with ``{labels}``, ``{descriptions}`` and ``{text}``; ``{{word}}`` stands for a literal ``{word}``.

    With ``{text}`` the whole is one user message; without it the template is the system message and the text the user
    message. A pair is sent as two labelled parts.

    Parameters
    ----------
    template : None takes a plain one that suits the label set
    labels : the closed set, in the order in which the model sees them; empty for an open task
    descriptions : what each label means
    known : labels that an open task's traces have: the slots offer them beside any other label. They are no part of
        what is asked, as far as `template` and the teacher's fingerprint go

    Raises
    ------
    PluginError
        Where the template has a slot that nothing fills.

    Examples
    --------
    >>> Prompt("One of {labels}: {text}", ["no", "yes"], {}).messages("Is it?")
    [{'role': 'user', 'content': 'One of no, yes: Is it?'}]
    >>> Prompt("As {labels}: {text}", [], {}, known=["no"]).messages("Is it?")[0]["content"]
    'As no, or another short label where none of these fits: Is it?'
    """

    def __init__(
        self,
        template: str | None,
        labels: Sequence[str],
        descriptions: Mapping[str, str],
        known: Sequence[str] = (),
    ) -> None:
        default = DESCRIBED if descriptions else CLOSED if labels else OPEN
        self.template = default if template is None else template
        self._plain, self._open, self._known = template is None, not labels, list(known[:_MOST])
        self._given: Counter[str] = Counter()
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
        self._offer()

    def note(self, label: str) -> None:
        """Take note of an answer: in an open task a label that recurs is offered from then on."""
        if not self._open or label in self._known or len(self._known) == _MOST:
            return
        self._given[label] += 1
        if self._given[label] == _RECURS:
            del self._given[label]
            self._known.append(label)  # at the end, so that a prefix that the endpoint has cached stays one
            self._offer()

    def _offer(self) -> None:
        if not self._open:
            return
        rest = "another short label where none of these fits" if self._known else "any short label"
        listed = [*self._known, f"or {rest}" if self._known else rest]
        self._filling = {"labels": ", ".join(listed), "descriptions": "\n".join(f"- {x}" for x in listed)}

    def messages(self, text: Text) -> list[dict[str, Any]]:
        """Return the messages that ask for the label of a text or a pair."""
        body = text if isinstance(text, str) else f"Text 1:\n{text[0]}\n\nText 2:\n{text[1]}"
        filling = {**self._filling, "text": body}
        # one pass: a "{labels}" inside the text stays what it is
        template = OFFERED if self._plain and self._open and self._known else self.template
        filled = _SLOT.sub(lambda match: match["literal"] or filling[match["name"]], template)
        if self.takes_text:
            return [{"role": "user", "content": filled}]
        return [{"role": "system", "content": filled}, {"role": "user", "content": body}]


def response_format(labels: Sequence[str]) -> dict[str, Any]:
    """Return the structured-output request for ``{"label": one of the labels}``."""
    label = {"type": "string", "enum": list(labels)} if labels else {"type": "string"}
    schema = {"type": "object", "properties": {"label": label}, "required": ["label"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": schema}}
