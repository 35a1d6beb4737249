import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_serve.components.teachers._labels import LabelSet
from tracer_serve.errors import TeacherError

CLOSED = LabelSet(["card_arrival", "Refund", "refund", "U.S.", "it's", "yes"])


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("card_arrival", "card_arrival"),
        ("  card_arrival\n", "card_arrival"),
        ("Card_Arrival", "card_arrival"),
        ('"card_arrival"', "card_arrival"),
        ("`card_arrival`.", "card_arrival"),
        ("\u201cYes.\u201d", "yes"),
        ('{"label": "card_arrival"}', "card_arrival"),
        ('\n{"label": "YES"}', "yes"),
        ("refund", "refund"),
        ("Refund", "Refund"),
        ("U.S.", "U.S."),
        ("u.s.", "U.S."),
        ("it's", "it's"),
    ],
)
def test_reads_what_is_clearly_a_label(answer: str, label: str) -> None:
    """White space, quotes, a full stop, another case and the schema's JSON object do not hide a label."""
    assert CLOSED.parse(answer) == label


@pytest.mark.parametrize(
    "answer",
    [
        "",
        ".",
        "card",
        "card arrival",
        "The label is card_arrival",
        "card_arrival, refund",
        "card_arrival!",
        "REFUND",
        "card_arrival...",
        "\"card_arrival'",
        '{"label": "lost"}',
        '{"label": 1}',
        '{"label": ["yes"]}',
        '{"label": "yes", "sure": true}',
        '{"intent": "yes"}',
        '{"label": "yes"',
        "[" * 100_000,
        '{"label":' + "[" * 100_000,
        "<think>yes</think>",
    ],
)
def test_everything_else_is_an_error_with_the_answer(answer: str) -> None:
    """An answer outside the set, or one that fits two labels, is never turned into a label."""
    with pytest.raises(TeacherError) as caught:
        CLOSED.parse(answer)
    assert (caught.value.reason, caught.value.answer) == ("unknown_label", answer)
    assert len(str(caught.value)) < 200


@given(
    st.text() | st.sampled_from(["yes", "card_arrival"]).flatmap(lambda x: st.tuples(st.text(), st.text()).map(x.join))
)
def test_never_makes_up_a_label(answer: str) -> None:
    """For any answer, the outcome is a label of the set that the answer spells out, or a typed error."""
    with contextlib.suppress(TeacherError):
        label = CLOSED.parse(answer)
        assert label in CLOSED.labels
        assert label.casefold() in answer.casefold()


@given(st.lists(st.text(min_size=1, max_size=20).map(str.strip).filter(bool), min_size=1, max_size=5, unique=True))
def test_every_label_is_read_back(labels: list[str]) -> None:
    """Whatever the labels are, each is found when answered verbatim, and in the JSON object."""
    closed = LabelSet(labels)
    for label in labels:
        assert closed.parse(json.dumps({"label": label})) == label
        if not label.startswith("{"):
            assert closed.parse(f" {label}\n") == label


@pytest.mark.parametrize(
    ("answer", "label"), [("Refund request.", "Refund request"), ('"x"', "x"), ("ü" * 100, "ü" * 100)]
)
def test_an_open_task_takes_a_short_line(answer: str, label: str) -> None:
    """Without a label set one line of at most 100 characters is a label."""
    assert LabelSet([]).parse(answer) == label


@pytest.mark.parametrize("answer", ["", '""', "one\ntwo", "x" * 101, "a\x00b", "a\u2028b"])
def test_an_open_task_takes_nothing_else(answer: str) -> None:
    """An empty, long or many-lined answer is an error in an open task too."""
    with pytest.raises(TeacherError, match="not one short line"):
        LabelSet([]).parse(answer)
