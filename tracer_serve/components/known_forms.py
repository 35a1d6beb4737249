"""The known forms of a task: direct calls, the teacher's own prompt, those of the YAML, and adopted ones."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tracer_serve.components.teachers._prompt import Prompt
from tracer_serve.config.forms import FormSpec
from tracer_serve.config.load import Task
from tracer_serve.errors import SpecError
from tracer_serve.forms.calls import CHAT, Call, NotACallError, as_conversation, slotted
from tracer_serve.forms.form import Form
from tracer_serve.forms.known import NATIVE, KnownForm, Match, Mismatch, recognise
from tracer_serve.protocols import Teacher
from tracer_serve.types import Text

_MARK = "\x00text\x00"
_PAIR = ("Text 1:\n", "\n\nText 2:\n", "")  # as `teachers._prompt.Prompt` writes a pair


@runtime_checkable
class Asking(Protocol):
    """Teacher that can return the body of its calls."""

    def request(self, text: Text) -> dict[str, Any]: ...  # noqa: D102


class KnownForms:
    """The forms whose calls belong to a task.

    Parameters
    ----------
    fixed : all but the teacher's own
    teacher : returns the teacher's own form, which changes when an open task finds new labels; None without a prompt
    turns : number of turns that are the text; None if the task does not classify conversations
    api : of calls that do not say it, as in `forms.calls.parse`: that of the teacher
    """

    def __init__(
        self,
        fixed: Sequence[KnownForm],
        teacher: Callable[[], KnownForm | None],
        turns: int | None = None,
        api: str | None = None,
    ) -> None:
        self._fixed, self._teacher, self._turns = tuple(fixed), teacher, turns
        self.adopted: tuple[KnownForm, ...] = ()
        self.api = api

    def __iter__(self) -> Iterator[KnownForm]:
        teacher = self._teacher()
        yield from self._fixed
        yield from (teacher,) if teacher is not None else ()
        yield from self.adopted

    def recognise(self, call: Call) -> Match | Mismatch:
        """Match a call against the forms, or return the rule that it breaks."""
        return recognise(call if self._turns is None else as_conversation(call, self._turns), self)

    def certified_as(self, fingerprint: str | None) -> str:
        """Return the form whose certificate covers rows of a form; rows without one are direct."""
        if fingerprint is None:
            return NATIVE
        return next((form.certified_as for form in self if form.fingerprint == fingerprint), fingerprint)

    def adopt(self, forms: Sequence[Mapping[str, Any]]) -> None:
        """Add the forms that were adopted while the task ran, as stored."""
        self.adopted = tuple(_adopted(facts) for facts in forms)


def make_forms(task: Task, teacher: Teacher) -> KnownForms:
    """Make the known forms of a task.

    Raises
    ------
    SpecError
        If a form of the YAML cannot be read.
    """
    spec = task.spec
    pair, own = spec.input == "pair", Form(CHAT, spec.name)
    fixed = []
    asked, api = _model_of(teacher), _api_of(teacher)
    if asked != spec.name:  # else a call of that model is one of the LLM itself
        native = own.wrapped(*_PAIR) if pair else own
        fixed.append(KnownForm(NATIVE, native, NATIVE, NATIVE, any_shape=True))
    roots = {"native": NATIVE, "teacher": NATIVE}
    for i, form in enumerate(spec.forms):
        made = _declared(task, form, teacher, f"forms[{i}]")
        root = roots[form.same_as] if form.same_as else made.fingerprint
        roots[form.name] = root
        exact = form.request is not None
        given = form.when_handled
        fixed.append(KnownForm(form.name, made, made.fingerprint, root, exact=exact, when_handled=given))
    turns = spec.turns if spec.input == "conversation" else None
    return KnownForms(fixed, lambda: _of_teacher(teacher, pair, turns is not None), turns, api)


def _api_of(teacher: Teacher) -> str | None:
    """Return the API of a teacher that has only one; None: any of OpenAI's."""
    api = getattr(teacher, "api", CHAT)
    return None if api == CHAT else str(api)


def _model_of(teacher: Teacher) -> str:
    return str(teacher.request("")["model"]) if isinstance(teacher, Asking) else ""


def _marked(pair: bool) -> Text:
    return (_MARK, _MARK) if pair else _MARK


def _of_teacher(teacher: Teacher, pair: bool, conversation: bool) -> KnownForm | None:
    if not isinstance(teacher, Asking):
        return None
    try:
        form = slotted(teacher.request(_marked(pair)), _MARK, 1 + pair, _api_of(teacher))
    except NotACallError:  # a prompt that quotes the text twice has no slot
        return None
    # a conversation as turns is another question than the same one rendered as a text
    return KnownForm("teacher", form, form.fingerprint, form.fingerprint if conversation else NATIVE)


def _declared(task: Task, form: FormSpec, teacher: Teacher, path: str) -> Form:
    api, pair = _api_of(teacher), task.spec.input == "pair"
    if form.request is not None:
        return _recorded(task, form, form.request, path, api)
    described = task.spec.labels if isinstance(task.spec.labels, dict) else {}
    prompt = Prompt(form.prompt, task.spec.label_names, described, fields=task.spec.answer_fields)
    asked = form.model or _model_of(teacher)
    if not asked:
        raise SpecError("is required: the teacher names no model", file=task.file, path=f"{path}.model")
    body = {**form.options, "model": asked, "messages": prompt.messages(_marked(pair))}
    try:
        return slotted(body, _MARK, 1 + pair, api)
    except NotACallError as error:
        raise SpecError(str(error).replace(_MARK, "{text}"), file=task.file, path=f"{path}.prompt") from None


def _recorded(task: Task, form: FormSpec, request: Path, path: str, api: str | None) -> Form:
    file = task.resolve(request)
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        model = {"model": form.model} if form.model else {}
        return slotted(body | model, form.slot, 1 + (task.spec.input == "pair"), api)
    except OSError as error:
        raise SpecError(f"{file} cannot be read: {error.strerror}", file=task.file, path=f"{path}.request") from None
    except (ValueError, TypeError) as error:  # no JSON, no object, or no call
        raise SpecError(f"{file}: {error}", file=task.file, path=f"{path}.request") from None


def _adopted(facts: Mapping[str, Any]) -> KnownForm:
    form = Form.of_json(facts["form"])
    root = facts.get("same_as") or form.fingerprint
    given = facts.get("when_handled") or {}
    return KnownForm(facts["name"], form, form.fingerprint, root, exact=True, when_handled=given)
