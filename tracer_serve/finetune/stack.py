"""The layers of an encoder, run in two parts: the lowest ones once, the others as often as it takes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.nn import Module, ModuleList

from tracer_serve.errors import PluginError


class Stack:
    """The list of layers inside a Hugging Face encoder.

    Parameters
    ----------
    body : the encoder; its layers are found by their number

    Raises
    ------
    PluginError
        Where no such list is there, as in models whose layers share their weights.
    """

    def __init__(self, body: Module, depth: int) -> None:
        lists = [name for name, part in body.named_modules() if isinstance(part, ModuleList) and len(part) == depth]
        if not lists:
            raise PluginError(f"{type(body).__name__} keeps its layers in no list: take a model of BERT's build")
        owner, _, self.name = lists[0].rpartition(".")
        self.owner = body.get_submodule(owner)
        self.layers: ModuleList = getattr(self.owner, self.name)
        self.in_tuple = False

    def below(self, count: int, run: Callable[[], object]) -> torch.Tensor:
        """Return what leaves the lowest layers, shape (n, tokens, width), while `run` runs these alone."""
        left: list[object] = []
        hook = self.layers[count - 1].register_forward_hook(lambda _, __, out: left.append(out))
        with self._only(self.layers[:count]):
            run()
        hook.remove()
        self.in_tuple = isinstance(left[0], tuple)
        found: torch.Tensor = left[0][0] if isinstance(left[0], tuple) else left[0]  # type: ignore[assignment]
        return found

    @contextmanager
    def above(self, count: int, hidden: torch.Tensor) -> Iterator[None]:
        """Run the layers above the lowest `count` alone; `hidden` is what left those."""
        given = (hidden,) if self.in_tuple else hidden
        last = self.layers[count - 1]  # stays in its place, for a model that reads attributes of its layers
        vars(last)["forward"] = lambda *_, **__: given
        try:
            with self._only(self.layers[count - 1 :]):
                yield
        finally:
            del vars(last)["forward"]

    @contextmanager
    def _only(self, layers: Iterable[Module]) -> Iterator[None]:
        setattr(self.owner, self.name, ModuleList(layers))
        try:
            yield
        finally:
            setattr(self.owner, self.name, self.layers)
