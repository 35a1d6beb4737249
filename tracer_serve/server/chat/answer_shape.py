"""Shape of an answer as a caller requests it: a bare label, a JSON object, or a function call."""

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tracer_serve.components.teachers._labels import AnyLabels
from tracer_serve.config.fields import AnswerFields, plain_answer, values_of
from tracer_serve.errors import TeacherError
from tracer_serve.server.chat.asked_format import format_of
from tracer_serve.server.chat.fill_schema import fill
from tracer_serve.server.chat.schema_places import Place, UnfillableError, field_places, label_place

_LABEL = "label"
_BLANK: dict[str, Any] = {"text": "", "number": 0}


@dataclass(frozen=True, slots=True)
class Answers:
    """Possible answers of a task: labels, or fields.

    Parameters
    ----------
    labels : the label set; empty in an open task that has none yet, and with fields
    fields : the fields of its answers; None if they are labels
    """

    labels: AbstractSet[str]
    fields: AnswerFields | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """Requested shape of an answer, for writing and reading it.

    Parameters
    ----------
    kind : where in the message the answer goes
    function : name of the function to call
    schema : JSON Schema of the object; None for a bare label, and for an object of the caller's wording
    places : of the label, by the name ``label``, or of the task's fields in `schema`
    when_handled : values of fields beside the label, see `fill_schema.fill`
    whole : whether the caller's prompt asks for all fields of the task where no schema says which
    """

    kind: Literal["text", "json", "tool", "function"]
    answers: Answers
    function: str = ""
    schema: dict[str, Any] | None = None
    places: Mapping[str, Place] = field(default_factory=dict)
    when_handled: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False

    def problem(self, label: str, others: Mapping[str, Any] | None = None) -> str | None:
        """Return why a label cannot be given in this shape; None if it can.

        Parameters
        ----------
        others : the teacher's values of fields of text and number
        """
        try:
            self._value(label, others or {}, None)
        except UnfillableError as error:
            return str(error)
        return None

    @property
    def example(self) -> str:
        """A label that this shape may ask for."""
        fields = self.answers.fields
        if fields is None:
            wanted = self.places[_LABEL].values if self.places else tuple(sorted(self.answers.labels))
            return wanted[0] if wanted else ""
        found: dict[str, Any] = {}
        for name in fields.certified:
            spec = fields.specs[name]
            known = [*(self.places[name].values if name in self.places else ()), *spec.labels]
            found[name] = {"boolean": True, "tags": []}.get(spec.type, next(iter(known), ""))
        return fields.encode(found)

    @property
    def unanswerable(self) -> str | None:
        """Why not even the teacher's answers can be given in this shape; None if they can."""
        fields = self.answers.fields
        others = {name: _BLANK[fields.specs[name].type] for name in fields.beside} if fields else {}
        return self.problem(self.example, others)

    def message(
        self, label: str, call_id: str, score: float | None = None, others: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], str]:
        """Return the assistant's message with a label, and its finish reason.

        Parameters
        ----------
        call_id : unique, names the call of a tool
        score : the acceptor's, for fields that want it
        others : the teacher's values of fields of text and number
        """
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        value = self._value(label, others or {}, score)
        # escaped to ASCII: a schema's default may hold half a surrogate pair
        written = value if isinstance(value, str) and self.kind == "text" else json.dumps(value)
        if self.kind in ("text", "json"):
            return message | {"content": written}, "stop"
        called = {"name": self.function, "arguments": written}
        if self.kind == "function":
            return message | {"function_call": called}, "function_call"
        return message | {"tool_calls": [{"id": call_id, "type": "function", "function": called}]}, "tool_calls"

    def read(self, message: Mapping[str, Any], labels: AnyLabels) -> str:
        """Return the label in an LLM's message of this shape.

        Raises
        ------
        TeacherError
            ``unknown_label`` where it says none.
        """
        answer = self._said(message)
        if self.schema is None:
            return labels.parse(answer)
        try:
            value = json.loads(answer)
            found = {name: _at(value, place.path) for name, place in self.places.items()}
        except (ValueError, LookupError, TypeError, RecursionError):
            found = {}
        if self.answers.fields is not None:
            return labels.parse(json.dumps(found))
        if not isinstance(found.get(_LABEL), str):
            raise TeacherError("the answer has no label where the schema has it", reason="unknown_label", answer=answer)
        return labels.parse(found[_LABEL])

    def _value(self, label: str, others: Mapping[str, Any], score: float | None) -> Any:
        """Return the answer as a text, or a value of JSON.

        Raises
        ------
        UnfillableError
            If it cannot be said.
        """
        fields = self.answers.fields
        if self.schema is None:
            if fields is not None:
                left = [name for name in fields.beside if name not in others and self._how(fields, name) == "defer"]
                if self.whole and left:
                    raise UnfillableError(f"{left[0]} is left to the teacher: when_handled says defer")
                return plain_answer(fields, values_of(label), others, score, self.when_handled)
            spelled = self.places[_LABEL].spelled(label) if self.places else label
            return spelled if self.kind == "text" else {_LABEL: spelled}
        values = {_LABEL: label} if fields is None else values_of(label) | dict(others)
        given = {place: values[name] for name, place in self.places.items() if name in values}
        return fill(self.schema, given, self._beside(others), score)

    def _how(self, fields: AnswerFields, name: str) -> Any:
        return self.when_handled.get(name, fields.specs[name].when_handled)

    def _beside(self, others: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the schema's other fields, by name."""
        fields, found = self.answers.fields, dict(self.when_handled)
        for name in fields.beside if fields is not None else ():
            if (place := self.places.get(name)) is not None:
                how = found.pop(name, fields.specs[name].when_handled) if fields is not None else None
                found.setdefault(place.path[-1], how)
                if name in others:
                    del found[place.path[-1]]
        return found

    def _said(self, message: Mapping[str, Any]) -> str:
        try:
            if self.kind == "tool":
                return str(message["tool_calls"][0]["function"]["arguments"])
            if self.kind == "function":
                return str(message["function_call"]["arguments"])
            return str(message["content"] or "")
        except (LookupError, TypeError):
            raise TeacherError("the answer calls no function", reason="unknown_label") from None


def shape_of(
    options: Mapping[str, Any], answers: Answers, when_handled: Mapping[str, Any], *, whole: bool = False
) -> Shape:
    """Return the shape that a call's options ask for.

    Parameters
    ----------
    options : fields of the body, as in `forms.form.Form.option_values`
    when_handled : values of fields beside the label
    whole : as in `Shape`

    Raises
    ------
    UnfillableError
        If there is no place for a label in it. That other fields need values too is for `Shape.problem` to say.
    """
    shape = replace(_shape(options, answers), when_handled=when_handled, whole=whole)
    if shape.schema is None:
        return shape
    if answers.fields is not None:
        return replace(shape, places=field_places(shape.schema, answers.fields))
    return replace(shape, places={_LABEL: label_place(shape.schema, answers.labels)})


def _shape(options: Mapping[str, Any], answers: Answers) -> Shape:
    tools, functions = _list(options, "tools"), _list(options, "functions")
    if tools and options.get("tool_choice") != "none":
        offered = [tool.get("function") for tool in _dicts(tools) if tool.get("type") == "function"]
        choice = options.get("tool_choice")
        named = choice.get("function") if isinstance(choice, dict) else None
        name, schema = _called(_dicts(offered), named, len(tools))
        return Shape("tool", answers, name, schema)
    if functions and options.get("function_call") != "none":
        choice = options.get("function_call")
        named = choice if isinstance(choice, dict) else None
        name, schema = _called(_dicts(functions), named, len(functions))
        return Shape("function", answers, name, schema)
    wanted = format_of(options)
    if wanted.choices is not None:
        return Shape("text", answers, places={_LABEL: _chosen(wanted.choices, answers)})
    return Shape("json" if wanted.json else "text", answers, schema=wanted.schema)


def _chosen(choices: Sequence[Any], answers: Answers) -> Place:
    try:
        return label_place({"enum": [*map(str, choices)]}, answers.labels)
    except UnfillableError:
        raise UnfillableError("its choices are not the task's labels") from None


def _at(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = value[name]
    return value


def _list(options: Mapping[str, Any], name: str) -> list[Any]:
    value = options.get(name) or []
    if not isinstance(value, list):
        raise UnfillableError(f"{name} is no list")
    return value


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _called(functions: Sequence[Mapping[str, Any]], named: Any, offered: int) -> tuple[str, dict[str, Any]]:
    """Return name and schema of the function that has to be called: the one that is chosen, or the only one."""
    if isinstance(named, dict):
        chosen = [function for function in functions if function.get("name") == named.get("name")]
    else:
        chosen = list(functions) if offered == 1 else []
    if len(chosen) != 1:
        raise UnfillableError("the model may choose which of its functions to call")
    schema = chosen[0].get("parameters")
    if not isinstance(schema, dict):
        raise UnfillableError("the function takes no parameters")
    return str(chosen[0].get("name")), schema
