"""Which place of a schema belongs to which field."""

from typing import Any

import pytest

from tracer_serve.config.fields import AnswerFields, FieldSpec
from tracer_serve.server.chat.schema_places import UnfillableError, field_places, label_place

LABELS = frozenset({"red", "blue", "green"})


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def enum(*values: Any) -> dict[str, Any]:
    return {"enum": list(values)}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        (of(colour=enum("Red", "BLUE", "green")), "colour"),
        (of(colour=enum("red", "blue")), "colour"),
        (of(colour=enum("red", "blue", "green", None), other=enum("red", "blue")), "colour"),
        (of(colour=enum("RED", "BLUE", "GREEN"), other=enum("red", "blue")), "colour"),
    ],
)
def test_a_label_is_found_in_another_case_and_among_others(schema: dict[str, Any], path: str) -> None:
    """The whole set goes before a part of it, and its own case before another."""
    assert label_place(schema, LABELS).path == (path,)


@pytest.mark.parametrize(
    "schema",
    [
        of(a=enum("red", "blue"), b=enum("red", "green")),
        of(a=enum("red")),
        of(a=enum("red", "blue", "green", "none")),
        of(a=enum("red", "Red", "blue")),
        of(a={"type": "array", "items": enum("red", "blue", "green")}),
    ],
)
def test_what_is_ambiguous_or_another_set_has_no_place(schema: dict[str, Any]) -> None:
    """Two parts of the set, a single label, a larger set, one label twice, and a list are not the task's label."""
    with pytest.raises(UnfillableError, match="of its fields have the task's labels"):
        label_place(schema, LABELS)


FIELDS = AnswerFields(
    {
        "colour": FieldSpec(labels=("red", "blue")),
        "size": FieldSpec(labels=("big", "small")),
        "is_new": FieldSpec(type="boolean"),
        "tags": FieldSpec(type="tags", labels=("x", "y", "z")),
    }
)


def test_fields_are_found_by_name_and_else_by_their_enum() -> None:
    """Names in any convention; an enum that only one field has; never a boolean of another name."""
    schema = of(
        tint=enum("red", "blue"), Size=enum("BIG", "SMALL"), isNew={"type": "boolean"}, sold={"type": "boolean"}
    )
    found = field_places(schema, FIELDS)
    assert {name: place.path for name, place in found.items()} == {
        "colour": ("tint",),
        "size": ("Size",),
        "is_new": ("isNew",),
    }


@pytest.mark.parametrize(
    "schema",
    [
        of(first=enum("red", "blue"), second=enum("red", "blue")),
        of(outer=of(size=enum("big", "small")), other=of(size=enum("big", "small"))),
        of(mood=enum("sad", "glad")),
        of(colour=enum("pink", "grey"), tags={"type": "array", "items": enum("x", "other")}),
    ],
)
def test_two_places_for_one_field_and_none_at_all_are_refused(schema: dict[str, Any]) -> None:
    """What could be either is neither, and a schema of other fields is not the task's."""
    with pytest.raises(UnfillableError):
        field_places(schema, FIELDS)


def test_two_fields_with_the_same_labels_need_their_names() -> None:
    """An unnamed place that could be two fields' is neither's."""
    twins = AnswerFields({name: FieldSpec(labels=("yes", "no")) for name in ("a", "b")})
    assert set(field_places(of(a=enum("yes", "no"), b=enum("yes", "no")), twins)) == {"a", "b"}
    with pytest.raises(UnfillableError, match="same labels"):
        field_places(of(said=enum("yes", "no")), twins)
