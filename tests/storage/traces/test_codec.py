import json

from hypothesis import example, given
from hypothesis import strategies as st

from tracer_serve.storage.traces.codec import dump, pack, parse, unpack

_lone = st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF, categories=["Cs"])
_any = st.text(st.one_of(st.characters(), _lone, st.sampled_from('\x00"[\\\u202e'))).filter(
    lambda text: text == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # no split pairs
)
hostile = st.one_of(_any, st.tuples(_any, _any))


@given(hostile)
@example('"quoted"')
@example('["looks", "like a pair"]')
@example(("nul \x00", "lone \ud800"))
def test_any_text_comes_back(value: str | tuple[str, str]) -> None:
    """Whatever text is packed can be stored by every database, and is what it was when unpacked."""
    stored = pack(value)
    assert "\x00" not in stored
    stored.encode("utf-8")
    assert unpack(stored) == value


@given(hostile, hostile)
def test_packing_keeps_texts_apart(one: str | tuple[str, str], other: str | tuple[str, str]) -> None:
    """Two different texts are never stored as the same string, so that a label's count is that label's."""
    assert (pack(one) == pack(other)) == (one == other)


@given(st.one_of(st.text(st.characters(max_codepoint=127)), _any))
@example('["\x7f"]')
def test_wrapped_texts_are_those_of_the_standard_library(text: str) -> None:
    """What is wrapped, is wrapped in the one way that earlier releases wrote, whichever encoder was the faster."""
    assert pack(f"[{text}") == json.dumps(f"[{text}")


@given(st.dictionaries(_any, st.one_of(st.none(), st.booleans(), st.integers(), _any, st.lists(_any))))
def test_json_is_ascii_and_comes_back(value: dict[str, object]) -> None:
    """A JSON value is stored as ASCII without NUL and is what it was when parsed."""
    stored = dump(value)
    assert stored.isascii()
    assert "\x00" not in stored
    assert parse(stored) == value
