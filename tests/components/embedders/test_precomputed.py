"""Vectors made by the client."""

import base64
import json

import numpy as np
import pytest

from tracer_serve.components.embedders.precomputed import Precomputed
from tracer_serve.components.registry import embedders
from tracer_serve.errors import BadInputError, PluginError


def test_reads_json_arrays_to_unit_norm() -> None:
    """Each input is parsed, checked and scaled, float32."""
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(20, 7)) * 10.0 ** rng.integers(-8, 8, (20, 1))
    vectors = Precomputed(dim=7).embed([json.dumps(row.tolist()) for row in raw])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=1e-6)


def test_float32_in_base64_is_the_same_vector() -> None:
    """Float32 bytes in base64, as OpenAI's endpoint gives them, read as the same numbers written out."""
    raw = np.random.default_rng(0).normal(size=(20, 7)).astype("<f4")
    written = [json.dumps(row.tolist()) for row in raw]
    packed = [base64.b64encode(row.tobytes()).decode() for row in raw]
    model = Precomputed(dim=7)
    np.testing.assert_array_equal(model.embed(packed), model.embed(written))


def test_empty_batch_has_no_rows() -> None:
    """No inputs, no rows, the same width."""
    assert Precomputed(dim=7).embed([]).shape == (0, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "not an array"),
        ("", "has 0 numbers"),
        ('{"a": 1}', "not an array"),
        ("3", "not an array"),
        ('["1", "2"]', "not an array"),
        ("[true, false]", "not an array"),
        ("[[1, 2]]", "not an array"),
        ("[null, 1]", "not an array"),
        ("[" * 100_000, "not an array"),
        ("[1]", "has 1 numbers, this task's vectors have 2"),
        ("[1, 2, 3]", "has 3 numbers"),
        ("[0, 0]", "zero"),
        ("[NaN, 1]", "not finite"),
        ("[1e999, 1]", "not finite"),
        (f"[1{'0' * 400}, 1]", "not finite"),
        (("[1, 2]", "[1, 2]"), "not an array"),
        ("AABAQAAAgEA", "not an array"),  # its padding is missing
        ("AABA QAAAgEA=", "not an array"),
        ("AABAQAAAgEAA", "not an array"),  # nine bytes
        ("AABAQA==", "has 1 numbers"),
        ("AAAAAAAAAAA=", "zero"),
        ("AADAfwAAgD8=", "not finite"),
    ],
)
def test_what_is_no_vector_is_refused(text: str | tuple[str, str], message: str) -> None:
    """Anything else than `dim` finite numbers, not all zero, is the client's error, and names the input."""
    with pytest.raises(BadInputError, match=message) as caught:
        Precomputed(dim=2).embed(["[1, 2]", text])
    assert "input 1" in str(caught.value)
    assert caught.value.http_status == 400


def test_frozen_and_fingerprinted_by_what_the_client_uses() -> None:
    """Another model or dimension is another embedder; a fit changes nothing."""
    model = Precomputed(dim=2, model="minilm")
    assert not model.trainable
    assert model.fit(["[1, 2]"]) is model
    prints = {e.fingerprint for e in (model, Precomputed(dim=2), Precomputed(dim=3, model="minilm"))}
    assert len(prints) == 3
    assert model.fingerprint == Precomputed(dim=2, model="minilm").fingerprint


def test_dimension_is_required() -> None:
    """Without `dim` the YAML is refused: a wrong length would be found too late."""
    with pytest.raises(PluginError, match="'dim'"):
        embedders.build("precomputed", {})
