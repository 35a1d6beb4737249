"""Labels in schemas."""

from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from tracer_serve.server.chat.fill_schema import fill as fill_places
from tracer_serve.server.chat.schema_places import UnfillableError, label_place

LABELS = frozenset({"red", "blue"})


def fill(schema: dict[str, Any], labels: frozenset[str], label: str) -> Any:
    return fill_places(schema, {label_place(schema, labels): label})


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Plain(BaseModel):
    colour: Literal["red", "blue"]


class Referenced(BaseModel):
    colour: Colour = Field(description="a description makes some generators wrap the reference")


class Nested(BaseModel):
    kind: Literal["answer"]
    answer: Plain
    note: str | None


class Maybe(BaseModel):
    colour: Colour | None


class Talkative(BaseModel):
    reasoning: str
    colour: Colour


class Twice(BaseModel):
    first: Colour
    second: Colour


class Many(BaseModel):
    colours: list[Colour]


@pytest.mark.parametrize("model", [Plain, Referenced, Nested, Maybe])
def test_what_is_filled_is_an_instance_of_the_schema(model: type[BaseModel]) -> None:
    """A pydantic model reads the label back, wherever its enum stands."""
    made = model.model_validate(fill(model.model_json_schema(), LABELS, "blue"))
    assert "blue" in made.model_dump_json()


@pytest.mark.parametrize("model", [Talkative, Twice, Many])
def test_what_a_label_cannot_say_is_not_made_up(model: type[BaseModel]) -> None:
    """A required text, a second label and a list of labels are not this task's to answer."""
    with pytest.raises(UnfillableError):
        fill(model.model_json_schema(), LABELS, "blue")


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"enum": ["red"]},
        {"enum": ["red", "blue", "green"]},
        {"enum": ["red", 1]},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#/$defs/loop", "$defs": {"loop": {"$ref": "#/$defs/loop"}}},
        {"$ref": "https://elsewhere/schema"},
        {"$defs": 3, "$ref": "#/$defs/a"},
        {"type": "object", "properties": {"a": 7}, "required": ["a"]},
        {"anyOf": [3, None]},
        {"$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}}, "$ref": "#/$defs/a"},
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}] * 9}}, "$ref": "#/$defs/a"},
        {"properties": {"a": {"enum": ["red", "blue"]}}, "required": 7},
    ],
)
def test_other_and_broken_schemas_are_refused(schema: dict[str, Any]) -> None:
    """A smaller or larger label set, loops, even branching ones, and foreign references end soon, in the one error."""
    with pytest.raises(UnfillableError):
        fill(schema, LABELS, "red")


def test_defaults_and_nulls_fill_what_has_no_opinion() -> None:
    """Required fields beside the label take their default or null; optional ones are left out."""
    schema = {
        "properties": {
            "colour": {"enum": ["blue", "red"]},
            "why": {"type": ["string", "null"]},
            "unit": {"default": "rgb"},
            "aside": {"type": "string"},
        },
        "required": ["colour", "why", "unit"],
    }
    assert fill(schema, LABELS, "red") == {"colour": "red", "why": None, "unit": "rgb"}
