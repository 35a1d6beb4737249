"""An answer to an instance of the JSON schema that a caller asked for."""

from collections.abc import Mapping
from typing import Any

from tracer_serve.config.fields import said
from tracer_serve.server.chat.schema_places import Place, UnfillableError, Walk, branches_of


def fill(
    schema: Mapping[str, Any],
    given: Mapping[Place, Any],
    when_handled: Mapping[str, Any] | None = None,
    score: float | None = None,
) -> Any:
    """Return the instance that says some values in their places.

    Whatever else the schema requires has to be a constant, a default, null, or a field that `when_handled` names: a
    surrogate makes up no text.

    Parameters
    ----------
    schema : JSON Schema as OpenAI's clients write it: objects, ``$ref`` to ``$defs``, ``enum``, ``anyOf``
    given : the task's own spelling, by place
    when_handled : by name of a field: ``score``, ``percent`` (of the score), ``omit``, ``defer``, or a constant
    score : the acceptor's, 0 to 1; without one such fields say 0

    Raises
    ------
    UnfillableError
        If that is not so.

    Examples
    --------
    >>> answer = {"type": "object", "properties": {"mood": {"enum": ["SAD", "GLAD"]}}, "required": ["mood"]}
    >>> fill(answer, {Place(("mood",), "choice", ("SAD", "GLAD")): "glad"})
    {'mood': 'GLAD'}
    """
    filling = _Filling(schema, given, when_handled or {}, score)
    value = filling.value(schema, (), 0)
    if filling.slots != len(given):
        raise UnfillableError(f"{filling.slots} of its fields hold the answer, not {len(given)}")
    return value


class _Filling:
    """One walk through a schema."""

    def __init__(
        self, root: Mapping[str, Any], given: Mapping[Place, Any], when_handled: Mapping[str, Any], score: float | None
    ) -> None:
        self.walk, self.when_handled, self.score = Walk(root), when_handled, score
        self.given = {place: place.spelled(value) for place, value in given.items()}
        self.slots = 0

    def value(self, schema: Any, path: tuple[str, ...], depth: int) -> Any:
        schema = self.walk.at(schema, depth)
        place = self.walk.place(schema, path, depth)
        if place is not None and place in self.given:
            self.slots += 1
            return self.given[place]
        if "const" in schema:
            return schema["const"]
        if branches := branches_of(schema):
            return self._any(branches, schema, path, depth)
        if isinstance(schema.get("properties"), dict):
            return self._object(schema, path, depth)
        return _blank(schema)

    def _object(self, schema: Mapping[str, Any], path: tuple[str, ...], depth: int) -> dict[str, Any]:
        required = schema.get("required") or ()
        if not isinstance(required, list | tuple):
            raise UnfillableError("its 'required' is no list")
        made = {}
        for name, inner in schema["properties"].items():
            before, how = self.slots, self.when_handled.get(name)
            if name in self.when_handled and how != "omit":
                if how == "defer":
                    raise UnfillableError(f"{name} is left to the teacher: when_handled says defer")
                made[name] = said(how, self.score)
                continue
            try:
                value = self.value(inner, (*path, name), depth + 1)
            except UnfillableError as error:
                if name in required:
                    raise UnfillableError(f"{name}: {error}") from None
                continue
            if name in required or self.slots > before:
                made[name] = value
        return made

    def _any(self, branches: Any, schema: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Any:
        """Take the branch that holds most of the answer; without one, whatever can be said without an opinion."""
        before, best, most = self.slots, None, 0
        for branch in branches:
            self.slots = before
            try:
                value = self.value(branch, path, depth + 1)
            except UnfillableError:
                continue
            if self.slots - before > most:
                best, most = value, self.slots - before
        self.slots = before + most
        return best if most else _blank(schema, {"type": "null"} in branches)


def _blank(schema: Mapping[str, Any], nullable: bool = False) -> Any:
    """Return what says nothing: the default, or null where it may be."""
    if "default" in schema:
        return schema["default"]
    kind = schema.get("type")
    if nullable or kind == "null" or (isinstance(kind, list) and "null" in kind):
        return None
    raise UnfillableError("it wants a value that is no label of this task")
