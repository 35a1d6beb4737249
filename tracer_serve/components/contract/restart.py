"""Check that a component predicts the same after a restart, which module state and `hash()` of a text do not survive.

The other checks run in one process and cannot detect this. After a restart, a server would answer differently from what
was certified.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from tracer_serve.components.contract._run import BrokenError, require_close
from tracer_serve.components.contract.acceptors import AcceptorCase
from tracer_serve.components.contract.embedders import TEXTS, EmbedderCase
from tracer_serve.components.contract.surrogates import SurrogateCase
from tracer_serve.components.factory import load_plugins, make_acceptor, make_embedder, make_surrogate
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.config.load import Task, load_task
from tracer_serve.errors import PluginError

Seam = Literal["surrogate", "acceptor", "embedder"]
_SAME = 5e-3  # a batch and a part of it
_MAKE = {"surrogate": make_surrogate, "acceptor": make_acceptor}


def check_restart(task: Task, components: Sequence[tuple[Seam, int, str]]) -> None:
    """Check that a fitted component predicts the same in a fresh process, with another seed of Python's `hash`.

    Parameters
    ----------
    components : seam, index in the YAML (of an embedder its place in `Spec.embedders`) and name of each

    Raises
    ------
    PluginError
        Naming the component, and how far its answers differ.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        said = {(seam, index): _said(task, seam, index, folder) for seam, index, _ in components}
        _run_afresh(task, [word for seam, index, _ in components for word in (seam, str(index))], folder)
        for seam, index, called in components:
            try:
                again = np.load(folder / f"{seam}-{index}.npy")
                require_close(again, said[seam, index], _SAME, "before and after a restart")
            except BrokenError as broken:
                raise PluginError(
                    f"{called} predicts something else after a restart. Found: {broken}. Likely causes: state kept in a"
                    " module or class instead of self, hash() of a text (hashlib's are stable), the order of a set"
                ) from broken


def _said(task: Task, seam: Seam, index: int, folder: Path) -> Any:
    """Fit a component, save it, and return its predictions."""
    place = folder / f"{seam}-{index}"
    if seam == "embedder":
        case = EmbedderCase(partial(make_embedder, task, place=index), TEXTS, ())
        if case.fitted.trainable:
            save_component(case.fitted, place)
        return case.vectors
    if seam == "acceptor":
        judged = AcceptorCase(partial(make_acceptor, task, index))
        save_component(judged.fitted, place)
        return judged.score
    learnt = SurrogateCase(partial(make_surrogate, task, index))
    save_component(learnt.fitted, place)
    return learnt.proba


def _run_afresh(task: Task, words: Sequence[str], folder: Path) -> None:
    seed = os.environ.get("PYTHONHASHSEED", "")
    environment = os.environ | {"PYTHONHASHSEED": str(int(seed) + 1 if seed.isdigit() else 1)}
    # -P as in the `tracer-serve` script: a file beside the YAML that is called like a library is not that library
    command = [sys.executable, "-P", "-m", __name__, str(task.file), str(folder), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no error output"])[-1]
        raise PluginError(f"{task.file}: what the plugins fitted fails in a fresh process: {last}")


def say_again(file: Path, folder: Path, seam: Seam, index: int) -> None:
    """In the fresh process, load what `check_restart` saved, and write its predictions to a file."""
    task, place = load_task(file), folder / f"{seam}-{index}"
    load_plugins(task)
    if seam == "embedder":
        embedder = make_embedder(task, place=index)
        said = (load_component(type(embedder), place) if embedder.trainable else embedder.fit(TEXTS)).embed(TEXTS)
    else:
        loaded = load_component(type(_MAKE[seam](task, index)), place)
        if seam == "acceptor":
            said = loaded.score(loaded.features(AcceptorCase(partial(make_acceptor, task, index)).evidence))
        else:
            said = loaded.predict_proba(SurrogateCase(partial(make_surrogate, task, index)).inputs)
    np.save(folder / f"{seam}-{index}.npy", said)


if __name__ == "__main__":
    for seam, index in zip(sys.argv[3::2], sys.argv[4::2], strict=True):
        say_again(Path(sys.argv[1]), Path(sys.argv[2]), cast("Seam", seam), int(index))
