"""Answers with several fields, and the label that stands for them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tracer_serve.config.fields import AnswerFields, FieldSpec, plain_answer, values_of
from tracer_serve.config.task import Spec

FIELDS = AnswerFields(
    {
        "intent": FieldSpec(labels=("card_lost", "Ärger", "other")),
        "urgent": FieldSpec(type="boolean"),
        "tags": FieldSpec(type="tags", labels=("vip", "fraud", "complaint")),
        "why": FieldSpec(type="text"),
        "sure": FieldSpec(type="number", when_handled="score"),
    }
)
ANSWER = {"intent": "card_lost", "urgent": True, "tags": ["vip", "fraud"], "why": "a theft", "sure": 0.8}


@given(
    st.sampled_from(["card_lost", "Ärger", "other"]),
    st.booleans(),
    st.sets(st.sampled_from(["vip", "fraud"])),
    st.text(),
)
def test_a_label_says_the_certified_fields_and_nothing_else(
    intent: str, urgent: bool, tags: set[str], why: str
) -> None:
    """Decoding gives the values back, and a text beside them changes nothing."""
    answer = {"intent": intent, "urgent": urgent, "tags": list(tags), "why": why}
    label = FIELDS.encode(answer)
    assert values_of(label) == {"intent": intent, "urgent": urgent, "tags": sorted(tags)}
    assert FIELDS.parse(label) == label == FIELDS.encode({**answer, "why": why + "!", "more": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"intent": "CARD_LOST"},
        {"urgent": "True"},
        {"tags": ["fraud", "VIP", "vip"]},
        {"Urgent": True},
        {"tags": '["fraud", "vip"]'},
    ],
)
def test_another_spelling_is_the_same_label(change: dict[str, Any]) -> None:
    """Case, order, repetition and the cells of a table do not matter."""
    rest = {name: value for name, value in ANSWER.items() if name.casefold() not in [c.casefold() for c in change]}
    assert FIELDS.encode(rest | change) == FIELDS.encode(ANSWER)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"intent": "lost"}, "intent"),
        ({"intent": None}, "intent"),
        ({"urgent": "perhaps"}, "urgent"),
        ({"urgent": 1}, "urgent"),
        ({"tags": "vip"}, "tags"),
        ({"tags": ["vip", "new"]}, "tags"),
    ],
)
def test_what_is_no_answer_is_refused_by_the_name_of_its_field(change: dict[str, Any], named: str) -> None:
    """A wrong, missing or malformed value is an error, never a guess; the error does not quote it."""
    with pytest.raises(ValueError, match=f"'{named}'"):
        FIELDS.encode(ANSWER | change)
    rest = {name: value for name, value in ANSWER.items() if name != named}
    with pytest.raises(ValueError, match=f"'{named}'"):
        FIELDS.encode(rest)


@pytest.mark.parametrize("answer", ["card_lost", "[]", "{", "null", "7"])
def test_what_is_no_object_is_refused(answer: str) -> None:
    """Any JSON but an object with the fields, and what is no JSON, raise the one error."""
    with pytest.raises(ValueError, match="intent"):
        FIELDS.parse(answer)


def test_an_answer_says_beside_the_label_what_the_yaml_says() -> None:
    """A score where it is asked for, the teacher's own value where there is one, nothing where it is deferred."""
    values = values_of(FIELDS.encode(ANSWER))
    assert plain_answer(FIELDS, values, {}, 0.91234567) == {**values, "sure": 0.9123}
    assert plain_answer(FIELDS, values, {"why": "a theft", "sure": 0.3}, 0.9) == {
        **values,
        "why": "a theft",
        "sure": 0.3,
    }


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"labels": ["a"]}, "short form"),
        ({"fields": {"why": {"type": "text"}}}, "at least one field"),
        ({"fields": {"intent": {}}}, "needs labels"),
        ({"fields": {"urgent": {"type": "boolean", "labels": ["a"]}}}, "belong to the types"),
        ({"fields": {"urgent": {"type": "boolean", "when_handled": "omit"}}}, "belongs to the types text and number"),
        ({"fields": {"a": {"labels": ["x", "x"]}}}, "twice"),
        ({"fields": {"a": {"labels": ["x"]}, "why": {"type": "text", "when_handled": "score"}}}, "type: number"),
        ({"gate": {"protect": {"a": 0.9}}}, "single labels"),
        ({"gate": {"per_class": True}}, "single labels"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused(spec: dict[str, Any], problem: str) -> None:
    """Both labels and fields, fields without values, and promises about single labels are errors that say so."""
    whole = {"name": "t", "teacher": "offline", "fields": {"intent": {"labels": ["a", "b"]}}} | spec
    with pytest.raises(ValidationError, match=problem):
        Spec.model_validate(whole)


def test_each_surrogate_of_a_task_with_fields_is_fitted_per_field() -> None:
    """Whatever is listed is wrapped once, the default too, and reports name it."""
    fields = {"intent": {"labels": ["a", "b"]}}
    spec = Spec.model_validate({"name": "t", "teacher": "offline", "fields": fields})
    assert [one.name for one in spec.surrogates] == ["blend per field"]
    again = Spec.model_validate(spec.model_dump(mode="json"))
    assert [one.name for one in again.surrogates] == ["blend per field"]
    listed = Spec.model_validate(
        {"name": "t", "teacher": "offline", "fields": fields, "surrogates": ["knn", {"type": "logreg", "C": 3.0}]}
    )
    assert [one.name for one in listed.surrogates] == ["knn per field", "logreg per field"]
    assert listed.surrogates[1].params == {"of": {"type": "logreg", "C": 3.0}}
