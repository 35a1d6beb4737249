"""Check a task's plugins before a fit uses them; built-in components are checked by the tests."""

from functools import partial

from tracer_serve.components.contract.acceptors import check_acceptor
from tracer_serve.components.contract.embedders import check_embedder
from tracer_serve.components.contract.restart import Seam, check_restart
from tracer_serve.components.contract.surrogates import check_surrogate
from tracer_serve.components.factory import make_acceptor, make_embedder, make_surrogate
from tracer_serve.components.registry import surrogates
from tracer_serve.config.load import Task

_OURS = "tracer_serve."


def check_plugins(task: Task) -> list[str]:
    """Run the contract on every component of a task that is not built in; return their names.

    Raises
    ------
    PluginError
        Naming the component and the check that failed.
    """
    spec, own = task.spec, list[tuple[Seam, int, str]]()
    for i, surrogate in enumerate(spec.surrogates):
        kind = surrogate.inner.type  # of fields: the plugin inside
        if not surrogates.get(kind).__module__.startswith(_OURS):
            check_surrogate(partial(make_surrogate, task, i), kind)
            own.append(("surrogate", i, kind))
    for i, acceptor in enumerate(spec.acceptors):
        if _is_foreign(make_acceptor(task, i)):
            check_acceptor(partial(make_acceptor, task, i), acceptor.type)
            own.append(("acceptor", i, acceptor.type))
    for place, embedder in enumerate(spec.embedders if spec.input == "text" else ()):
        if _is_foreign(make_embedder(task, place=place)):
            check_embedder(partial(make_embedder, task, place=place), embedder.type)
            own.append(("embedder", place, embedder.type))
    if own:
        check_restart(task, own)
    return [name for _, _, name in own]


def _is_foreign(component: object) -> bool:
    return not type(component).__module__.startswith(_OURS)
