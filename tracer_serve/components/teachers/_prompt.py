"""Build the messages of a chat completion from a prompt template and a text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tracer_serve.components.teachers._labels import may_be_offered
from tracer_serve.config.fields import AnswerFields
from tracer_serve.errors import PluginError
from tracer_serve.infra.caller import KEY_ID
from tracer_serve.types import Text

CLOSED = "Classify the text. Answer with exactly one of these labels and nothing else: {labels}"
DESCRIBED = "Classify the text. Answer with exactly one of these labels and nothing else.\n{descriptions}"
OPEN = "Classify the text. Answer with one short label and nothing else."
FIELDS = "Answer about the text with a JSON object of these fields and nothing else.\n{fields}"
OFFERED = "Classify the text. Answer with one short label and nothing else: {labels}"
_MOST = 200  # labels offered in an open task, which bounds the length of the prompt
_RECURS = 3  # answers after which a new label is offered, so that a single slip is not repeated
_CALLERS = 2  # keys that these answers go to: no caller alone can put words into everybody's prompt
_COUNTED = 10_000  # new labels that are counted at a time
_SLOT = re.compile(r"\{(?P<literal>\{\w+\})\}|\{(?P<name>\w+)\}")
_OF_LABELS, _OF_FIELDS = ("labels", "descriptions", "text"), ("fields", "text")


class Prompt:
    """Prompt template with slots ``{labels}``, ``{descriptions}``, ``{text}``; ``{{word}}`` is a literal ``{word}``.

    Of a task with fields the slots are ``{fields}`` and ``{text}``.

    With ``{text}`` the filled template is one user message. Without it the template is the system message and the text
    is the user message. A pair is sent as two labelled parts.

    Parameters
    ----------
    template : None selects the default template for the label set
    labels : the closed set, in the order in which the model sees them; empty for an open task
    descriptions : what each label means
    known : labels in an open task's traces, offered in the slots next to "any other". They change neither `template`
        nor the teacher's fingerprint
    fields : the fields of the answer, instead of labels

    Raises
    ------
    PluginError
        If the template has an unknown slot.

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
        fields: AnswerFields | None = None,
    ) -> None:
        default = FIELDS if fields else DESCRIBED if descriptions else CLOSED if labels else OPEN
        self.template = default if template is None else template
        self._plain, self._open, self._known = template is None, not (labels or fields), list(known[:_MOST])
        fillable = _OF_FIELDS if fields else _OF_LABELS
        self._given: dict[str, tuple[int, frozenset[str]]] = {}
        for match in _SLOT.finditer(self.template):
            if match["name"] and match["name"] not in fillable:
                filled = ", ".join(f"{{{name}}}" for name in fillable)
                raise PluginError(
                    f"parameter 'prompt': nothing fills {match[0]}; {filled} are filled; write {{{match[0]}}} for a"
                    f" literal {match[0]}"
                )
        self.takes_text = any(match["name"] == "text" for match in _SLOT.finditer(self.template))
        self._filling = {
            "labels": ", ".join(labels),
            "descriptions": "\n".join(f"- {x}: {descriptions[x]}" if x in descriptions else f"- {x}" for x in labels),
        }
        if fields is not None:
            self._filling = {"fields": fields.listing()}
        self._offer()

    def note(self, label: str) -> None:
        """Count an answer; in an open task a label that recurs, for several callers, is offered in later prompts.

        Answers without an API key count as one caller each, as in `TraceTable.labels_in_use`.
        """
        if not self._open or label in self._known or len(self._known) == _MOST or not may_be_offered(label):
            return
        if len(self._given) == _COUNTED:
            self._given.clear()
        answers, callers = self._given.get(label, (0, frozenset()))
        answers, callers = answers + 1, callers | {KEY_ID.get() or f"answer {answers}"}
        self._given[label] = answers, callers
        if answers >= _RECURS and len(callers) >= _CALLERS:
            del self._given[label]
            self._known.append(label)  # appended, so that the prompt prefix cached by the endpoint stays valid
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
        # one pass: a "{labels}" inside the text is not a slot
        template = OFFERED if self._plain and self._open and self._known else self.template
        filled = _SLOT.sub(lambda match: match["literal"] or filling[match["name"]], template)
        if self.takes_text:
            return [{"role": "user", "content": filled}]
        return [{"role": "system", "content": filled}, {"role": "user", "content": body}]
