"""The layers of an encoder, run in two parts: the lowest ones once, the others as often as it takes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import Module, ModuleList

from tracer_serve.errors import PluginError


class Stack:
    """The list of layers inside a Hugging Face encoder.

    Layers that shall not run stay in their places and return what was given: a model may count or read its layers.

    Parameters
    ----------
    body : the encoder; its layers are found by their number, `depth`
    count : the lowest layers, which are one part

    Raises
    ------
    PluginError
        Where no such list is there, as in models whose layers share their weights.
    """

    def __init__(self, body: Module, depth: int, count: int) -> None:
        lists = [part for part in body.modules() if isinstance(part, ModuleList) and len(part) == depth]
        if not lists:
            raise PluginError(f"{type(body).__name__} keeps its layers in no list: take a model of BERT's build")
        self.lower, self.upper = lists[0][:count], lists[0][count:]
        self.left: Any = None  # by the last of the lowest layers when it ran
        if count:
            self.lower[-1].register_forward_hook(self._note)

    def below(self, run: Callable[[], object]) -> torch.Tensor:
        """Return what leaves the lowest layers, shape (n, tokens, width), while `run` runs these alone."""
        with _replaced(self.upper, lambda *_, **__: self.left):
            run()
        found: torch.Tensor = self.left[0] if isinstance(self.left, tuple) else self.left
        return found

    @contextmanager
    def above(self, hidden: torch.Tensor) -> Iterator[None]:
        """Run the other layers alone; `hidden` is what left the lowest. The encoder must have run as a whole before."""
        given = (hidden, *self.left[1:]) if isinstance(self.left, tuple) else hidden
        with _replaced(self.lower, lambda *_, **__: given):
            yield

    def _note(self, _: Module, __: object, out: object) -> None:
        self.left = out


@contextmanager
def _replaced(layers: ModuleList, forward: Callable[..., Any]) -> Iterator[None]:
    for layer in layers:
        vars(layer)["forward"] = forward
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]
