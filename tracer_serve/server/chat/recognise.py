"""Whether an LLM call is a call of the task: its form, the text in its slot, and the shape of its answer."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tracer_serve.components.known_forms import KnownForms
from tracer_serve.config.fields import AnswerFields
from tracer_serve.forms.calls import Call, NotACallError, parse
from tracer_serve.forms.known import NATIVE, NOT_A_CALL, KnownForm, Mismatch
from tracer_serve.server.chat.answer_shape import Answers, Shape, shape_of
from tracer_serve.server.chat.schema_places import UnfillableError
from tracer_serve.types import Text


@dataclass(frozen=True, slots=True)
class TaskCall:
    """A call of a known form.

    Parameters
    ----------
    text : what is in the slot
    shape : the shape that the label is wanted in
    """

    call: Call
    known: KnownForm
    text: Text
    shape: Shape


@dataclass(frozen=True, slots=True)
class ForeignCall:
    """A call that is passed on unanswered.

    Parameters
    ----------
    reason : the first rule of `forms.known.RULES` that it breaks, or ``not_a_call``
    nearest : name of the known form that it comes nearest to
    detail : what differs
    call : None if it could not be parsed
    """

    reason: str
    nearest: str
    detail: str
    call: Call | None = None


class Recogniser:
    """Tells this task's calls from all others, by their form alone.

    Parameters
    ----------
    name : of the task
    forms : the known forms
    labels : returns the label set
    pair : whether the task classifies pairs; direct calls may then hold a JSON list of two texts
    fields : of the task's answers, instead of labels
    """

    def __init__(
        self,
        name: str,
        forms: KnownForms,
        labels: Callable[[], Sequence[str]],
        *,
        pair: bool = False,
        fields: AnswerFields | None = None,
    ) -> None:
        self.name, self.forms, self._labels, self._pair, self._fields = name, forms, labels, pair, fields

    def read(self, body: bytes, api: str | None = None) -> TaskCall | ForeignCall:
        """Recognise the body of a call.

        Parameters
        ----------
        api : as in `forms.calls.parse`; None: that of the forms
        """
        try:
            call = parse(body, api or self.forms.api)
        except NotACallError as error:
            return ForeignCall(NOT_A_CALL, NATIVE, str(error))
        if self._pair and call.form.model == self.name:
            call = _as_pair(call)
        found = self.forms.recognise(call)
        if isinstance(found, Mismatch):
            return ForeignCall(found.rule, found.nearest, found.detail, call)
        direct = found.known.fingerprint == NATIVE
        answers = Answers(frozenset() if self._fields else frozenset(self._labels()), self._fields)
        try:
            options = call.form.option_values
            shape = shape_of(options, answers, found.known.when_handled, whole=not direct)
        except UnfillableError as error:
            return ForeignCall(
                "unknown_options", found.known.name, f"its answer has no place for a label: {error}", call
            )
        if direct and (problem := shape.unanswerable):
            return ForeignCall("unknown_options", NATIVE, problem, call)
        return TaskCall(call, found.known, found.text, shape)


def _as_pair(call: Call) -> Call:
    """Write a JSON list of two texts as the teacher's prompt writes a pair."""
    try:
        value = json.loads(call.message or "")
    except (ValueError, RecursionError):
        return call
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):  # noqa: PLR2004
        return replace(call, message=f"Text 1:\n{value[0]}\n\nText 2:\n{value[1]}")
    return call
