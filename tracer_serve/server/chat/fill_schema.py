"""A label to an instance of the JSON schema that a caller asked for."""

import math
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

_DEPTH = 12
_PLACES = 10_000  # of a schema that are looked at: references to itself make some that no walk comes to the end of
_NAMED = ("#/$defs/", "#/definitions/")


class UnfillableError(ValueError):
    """The schema wants more than a label of this task."""


def fill(
    schema: Mapping[str, Any],
    labels: AbstractSet[str],
    label: str,
    when_handled: Mapping[str, Any] | None = None,
    score: float | None = None,
) -> Any:
    """Return the instance that says `label`.

    Exactly one place of the schema has the label set as its ``enum``. Whatever else it requires has to be a constant, a
    default, null, or a field that `when_handled` names: a surrogate makes up no text.

    Parameters
    ----------
    schema : JSON Schema as OpenAI's clients write it: objects, ``$ref`` to ``$defs``, ``enum``, ``anyOf``
    labels : the task's label set
    when_handled : by name of a field: ``score``, ``percent`` (of the score), ``defer``, or a constant
    score : the acceptor's, 0 to 1; without one such fields say 0

    Raises
    ------
    UnfillableError
        Where that is not so.

    Examples
    --------
    >>> answer = {"type": "object", "properties": {"mood": {"enum": ["sad", "glad"]}}, "required": ["mood"]}
    >>> fill(answer, {"glad", "sad"}, "glad")
    {'mood': 'glad'}
    """
    filling = _Filling(schema, labels, label, when_handled or {}, score)
    value = filling.value(schema, 0)
    if filling.slots != 1:
        raise UnfillableError(f"{filling.slots} of its fields have the task's labels as their enum, not one")
    return value


def label_path(schema: Mapping[str, Any], labels: AbstractSet[str]) -> tuple[str, ...]:
    """Return the names of the fields that lead to the label, outermost first.

    Raises
    ------
    UnfillableError
        Where not exactly one place has the label set as its ``enum``.

    Examples
    --------
    >>> label_path({"properties": {"mood": {"enum": ["sad", "glad"]}, "why": {"type": "string"}}}, {"glad", "sad"})
    ('mood',)
    """
    filling = _Filling(schema, labels, "", {}, None)
    found = set(filling.paths(schema, (), 0))
    if len(found) != 1:
        raise UnfillableError(f"{len(found)} of its fields have the task's labels as their enum, not one")
    return found.pop()


def _said(how: Any, name: str, score: float | None) -> Any:
    """Return what a field beside the label says in a handled answer."""
    sure = min(1.0, max(0.0, score)) if score is not None and math.isfinite(score) else 0.0
    if how == "defer":
        raise UnfillableError(f"{name} is left to the teacher: when_handled says defer")
    return {"score": round(sure, 4), "percent": round(100.0 * sure, 2)}.get(how, how) if isinstance(how, str) else how


class _Filling:
    """One walk through a schema."""

    def __init__(
        self,
        root: Mapping[str, Any],
        labels: AbstractSet[str],
        label: str,
        when_handled: Mapping[str, Any],
        score: float | None,
    ) -> None:
        self.root, self.labels, self.label = root, labels, label
        self.when_handled, self.score = when_handled, score
        self.slots = self.places = 0

    def paths(self, schema: Any, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, ...]]:
        """Yield the path of every place that has the label set as its enum."""
        self.places += 1
        if self.places > _PLACES:
            raise UnfillableError(f"it has more than {_PLACES:,} places for a value")
        schema = self._resolved(schema, depth)
        const = schema.get("const")
        if self._is_label_set(schema.get("enum")) or (isinstance(const, str) and self.labels == {const}):
            yield path
            return
        for branch in schema.get("anyOf") or schema.get("oneOf") or ():
            yield from self._paths_if_schema(branch, path, depth)
        if isinstance(schema.get("properties"), dict):
            for name, inner in schema["properties"].items():
                yield from self._paths_if_schema(inner, (*path, name), depth)

    def _paths_if_schema(self, schema: Any, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, ...]]:
        if isinstance(schema, dict) and depth < _DEPTH:
            yield from self.paths(schema, path, depth + 1)

    def value(self, schema: Any, depth: int) -> Any:
        self.places += 1
        if self.places > _PLACES:
            raise UnfillableError(f"it has more than {_PLACES:,} places for a value")
        schema = self._resolved(schema, depth)
        if (allowed := schema.get("enum")) is not None and self._is_label_set(allowed):
            self.slots += 1
            return self.label
        if "const" in schema:
            self.slots += isinstance(schema["const"], str) and self.labels == {schema["const"]}
            return schema["const"]
        if isinstance(branches := schema.get("anyOf") or schema.get("oneOf"), list):
            return self._any(branches, schema, depth)
        if isinstance(schema.get("properties"), dict):
            return self._object(schema, depth)
        return _blank(schema)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required") or ()
        if not isinstance(required, list | tuple):
            raise UnfillableError("its 'required' is no list")
        made = {}
        for name, inner in schema["properties"].items():
            before = self.slots
            try:
                if name in self.when_handled:
                    made[name] = _said(self.when_handled[name], name, self.score)
                    continue
                value = self.value(inner, depth + 1)
            except UnfillableError as error:
                if name in required:
                    raise UnfillableError(f"{name}: {error}") from None
                continue
            if name in required or self.slots > before:
                made[name] = value
        return made

    def _any(self, branches: list[Any], schema: Mapping[str, Any], depth: int) -> Any:
        """Take the branch that holds the label; without one, whatever can be said without an opinion."""
        before = self.slots
        for branch in branches:
            try:
                value = self.value(branch, depth + 1)
            except UnfillableError:
                continue
            if self.slots > before:
                return value
        return _blank(schema, {"type": "null"} in branches)

    def _resolved(self, schema: Any, depth: int) -> Mapping[str, Any]:
        for _ in range(_DEPTH):
            if not isinstance(schema, dict) or depth > _DEPTH:
                break
            if "$ref" not in schema:
                parts = schema.get("allOf")  # how some generators write a reference that has a description
                if not (isinstance(parts, list) and len(parts) == 1):
                    return schema
                schema = parts[0]
                continue
            where = str(schema["$ref"])
            prefix = next((prefix for prefix in _NAMED if where.startswith(prefix)), None)
            group = self.root.get(prefix[2:-1]) if prefix else None
            schema = group.get(where.removeprefix(prefix)) if isinstance(group, dict) and prefix else None
        raise UnfillableError("it is no schema that is understood here")

    def _is_label_set(self, allowed: Any) -> bool:
        if (
            not self.labels
            or not isinstance(allowed, list)
            or not all(isinstance(value, str | None) for value in allowed)
        ):
            return False
        return {value for value in allowed if value is not None} == self.labels


def _blank(schema: Mapping[str, Any], nullable: bool = False) -> Any:
    """Return what says nothing: the default, or null where it may be."""
    if "default" in schema:
        return schema["default"]
    kind = schema.get("type")
    if nullable or kind == "null" or (isinstance(kind, list) and "null" in kind):
        return None
    raise UnfillableError("it wants a value that is no label of this task")
