"""A version that is loaded is ready: its encoder too."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from tracer_serve.config.load import Task
from tracer_serve.serving.runtime import warm
from tracer_serve.types import Text, Vectors

MakeTask = Callable[..., Task]


class Counting:
    """Counts what it is asked."""

    fingerprint = "counting"

    def __init__(self, *, trainable: bool = False, remote: bool = False) -> None:
        self.trainable, self.remote = trainable, remote
        self.asked: list[Text] = []

    def fit(self, texts: Sequence[Text]) -> Self:
        assert texts
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        self.asked += texts
        return np.ones((len(texts), 1), np.float32)


def test_an_encoder_loads_its_weights_with_the_version(task: MakeTask) -> None:
    """A frozen encoder of this process embeds one input, of the task's kind; an endpoint is not asked."""
    here, there, fitted = Counting(), Counting(remote=True), Counting(trainable=True)
    warm(task(), (here, there, fitted))
    assert here.asked == ["a text"]
    assert there.asked == fitted.asked == []
    warm(task(input="pair"), (here,))
    assert here.asked[1:] == [("a text", "another")]
