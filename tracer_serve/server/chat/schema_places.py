"""Find the places of a JSON schema for a task's labels or fields, and spell values as the schema does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

from tracer_serve.config.fields import AnswerFields, FieldSpec, same_name, spelled

_DEPTH = 12
_PLACES = 10_000  # of a schema that are looked at: references to itself make some that no walk comes to the end of
_NAMED = ("#/$defs/", "#/definitions/")
_FEWEST = 2  # labels of a subset that is still a choice

Kind = Literal["choice", "boolean", "tags", "text", "number"]
_KINDS: dict[Any, Kind] = {"boolean": "boolean", "string": "text", "number": "number"}


class UnfillableError(ValueError):
    """The schema requires more than this task answers."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place for a value.

    Parameters
    ----------
    path : names of the fields that lead to it, outermost first
    values : of its enum, in the caller's spelling
    """

    path: tuple[str, ...]
    kind: Kind
    values: tuple[str, ...] = ()

    def spelled(self, value: Any) -> Any:
        """Return a value as the caller spells it.

        Raises
        ------
        UnfillableError
            If it is not among what was asked for.
        """
        if self.kind == "choice":
            return self._one(value)
        return [self._one(tag) for tag in value] if self.kind == "tags" else value

    def _one(self, label: str) -> str:
        found = spelled(label, self.values)
        if found is None:
            raise UnfillableError(f"the label {label!r} is not in the enum that was asked for")
        return found


class Walk:
    """Bounded walk through a schema that resolves references."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root, self._seen = root, 0

    def at(self, schema: Any, depth: int) -> Mapping[str, Any]:
        """Return a schema with its references resolved.

        Raises
        ------
        UnfillableError
            If a reference cannot be resolved, or the schema is too large.
        """
        self._seen += 1
        if self._seen > _PLACES:
            raise UnfillableError(f"it has more than {_PLACES:,} places for a value")
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
            group = self._root.get(prefix[2:-1]) if prefix else None
            schema = group.get(where.removeprefix(prefix)) if isinstance(group, dict) and prefix else None
        raise UnfillableError("it is no schema that is understood here")

    def place(self, schema: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Place | None:
        """Return the place that a resolved schema is; None if it is none, or several."""
        constant = [schema["const"]] if isinstance(schema.get("const"), str) else None
        if (values := _strings(schema.get("enum") or constant)) is not None:
            return Place(path, "choice", values)
        if "const" in schema or "enum" in schema:
            return None
        kinds = schema.get("type")
        named = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
        if named == ["array"] and isinstance(schema.get("items"), dict):
            values = _strings(self.at(schema["items"], depth + 1).get("enum"))
            return None if values is None else Place(path, "tags", values)
        kind = _KINDS.get(named[0]) if len(named) == 1 and isinstance(named[0], str) else None
        return None if kind is None else Place(path, kind)

    def places(self, schema: Any, path: tuple[str, ...], depth: int) -> Iterator[Place]:
        """Yield every place of a schema."""
        schema = self.at(schema, depth)
        if (found := self.place(schema, path, depth)) is not None:
            yield found
            return
        for branch in branches_of(schema):
            if isinstance(branch, dict) and depth < _DEPTH:
                yield from self.places(branch, path, depth + 1)
        if isinstance(schema.get("properties"), dict):
            for name, inner in schema["properties"].items():
                if isinstance(inner, dict) and depth < _DEPTH:
                    yield from self.places(inner, (*path, name), depth + 1)


def branches_of(schema: Mapping[str, Any]) -> Sequence[Any]:
    """Return the alternatives of a schema."""
    found = schema.get("anyOf") or schema.get("oneOf")
    return found if isinstance(found, list) else ()


def label_place(schema: Mapping[str, Any], labels: AbstractSet[str]) -> Place:
    """Return the only place that has the labels as its enum: all of them, in whatever case, or a part of them.

    Raises
    ------
    UnfillableError
        If not exactly one place has.

    Examples
    --------
    >>> label_place({"properties": {"mood": {"enum": ["SAD", "GLAD"]}, "why": {"type": "string"}}}, {"glad", "sad"})
    Place(path=('mood',), kind='choice', values=('SAD', 'GLAD'))
    """
    found = _closest(_all(schema), "choice", labels)
    if len(found) != 1:
        raise UnfillableError(f"{len(found)} of its fields have the task's labels as their enum, not one")
    return found[0]


def field_places(schema: Mapping[str, Any], fields: AnswerFields) -> dict[str, Place]:
    """Return the places of the task's fields that a schema asks for: by name, else by an enum that no other has.

    Raises
    ------
    UnfillableError
        If two places could be one field's, or there is none of a certified field.
    """
    places, found = _all(schema), dict[str, Place]()
    for name, spec in fields.specs.items():
        named = [p for p in places if p.path and same_name(p.path[-1], name)]
        if mine := _fitting(named, spec):
            found[name] = _only(mine, name)
    rest = [p for p in places if p not in found.values()]
    for name, spec in fields.specs.items():
        if name not in found and spec.labels and (mine := _fitting(rest, spec)):
            found[name] = _only(mine, name)
    if len(set(found.values())) < len(found):
        raise UnfillableError("two of the task's fields have the same labels, and the schema names neither")
    if not any(fields.specs[name].certified for name in found):
        raise UnfillableError("none of its fields is one of the task's")
    return found


def _all(schema: Mapping[str, Any]) -> list[Place]:
    return list(dict.fromkeys(Walk(schema).places(schema, (), 0)))


def _only(places: Sequence[Place], name: str) -> Place:
    if len(places) > 1:
        raise UnfillableError(f"{len(places)} of its fields could be {name!r}")
    return places[0]


def _fitting(places: Iterable[Place], spec: FieldSpec) -> list[Place]:
    if spec.type in ("choice", "tags"):
        return _closest(places, spec.type, frozenset(spec.labels))
    return [place for place in places if place.kind == spec.type]


def _closest(places: Iterable[Place], kind: str, labels: AbstractSet[str]) -> list[Place]:
    """Return the places whose enum comes nearest to some labels: the same, in another case, or a part of them."""
    by_rank: dict[int, list[Place]] = {}
    for place in places:
        if place.kind == kind and (rank := _rank(place.values, labels)) is not None:
            by_rank.setdefault(rank, []).append(place)
    return by_rank[min(by_rank)] if by_rank else []


def _rank(values: Sequence[str], labels: AbstractSet[str]) -> int | None:
    """Return how an enum relates to labels: 0 the same, 1 in another case, 2 a part of them; None: another one."""
    if not labels:
        return None
    if set(values) == labels:
        return 0
    meant = [spelled(value, labels) for value in values]
    if None in meant or len(set(meant)) < len(meant):
        return None
    if len(meant) == len(labels):
        return 1
    return 2 if len(meant) >= _FEWEST else None


def _strings(values: Any) -> tuple[str, ...] | None:
    """Return the strings of an enum, null left out; None if it holds anything else."""
    if not isinstance(values, list) or not all(isinstance(value, str | None) for value in values):
        return None
    return tuple(value for value in values if value is not None) or None
