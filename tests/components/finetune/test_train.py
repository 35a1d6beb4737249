"""Parts of training that can be tested alone."""

import itertools

import numpy as np
import pytest

from tracer_serve.components.finetune.train import _height, temperature_of


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_sharpened_logits_is_found(temperature: float) -> None:
    """Labels drawn from softmax(logits) make logits times T need T."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2.0, size=(4000, 3))
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    codes = (rng.random((4000, 1)) > np.cumsum(proba, axis=1)).sum(axis=1)
    assert temperature_of(logits * temperature, codes) == pytest.approx(temperature, rel=0.1)


def test_a_few_rows_without_a_mistake_do_not_promise_certainty() -> None:
    """Thirty right answers sharpen by less than an order of magnitude."""
    logits = np.eye(3)[np.arange(30) % 3] * 2.0
    assert 0.1 < temperature_of(logits, np.arange(30) % 3) < 1.0


def test_the_rate_rises_then_falls_with_whichever_is_further_along() -> None:
    """Steps lead as long as there is time; where the clock leads, the decay ends with the budget."""
    steps = np.linspace(0, 1, 101)
    calm = [_height(step, step / 2) for step in steps]
    hurried = [_height(step / 2, step) for step in steps]
    assert np.argmax(calm) == 10
    assert max(calm) == pytest.approx(1.0)
    assert calm[-1] == hurried[-1] == 0.0
    assert all(later < earlier for earlier, later in itertools.pairwise(hurried[30:]))
