"""Run the heavy parts of a refit where `compute` says: on this machine or on a Dask cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tracer_serve.config.base import Component
from tracer_serve.config.load import Task
from tracer_serve.config.server import ServerSpec
from tracer_serve.errors import PluginError
from tracer_serve.infra.parallel import active_cluster


@contextmanager
def computing(task: Task) -> Iterator[None]:
    """Let `spread` use the engine of the task's `compute` within the block.

    Raises
    ------
    PluginError
        If Dask is not installed.
    FitError
        If the cluster cannot be reached, or is lost.
    """
    spec = task.spec.compute
    if spec.engine == "local":
        yield
        return
    try:
        from tracer_serve.fit.dask_cluster import DaskCluster  # noqa: PLC0415  # an optional extra, and a second of imports
    except ModuleNotFoundError as error:
        raise PluginError(
            f"compute.engine: dask needs the package {error.name!r}. Try:"
            " pip install '.[dask]' in a checkout of tracer-serve"
        ) from error
    cluster = DaskCluster(str(spec.address), [task.resolve(path) for path in task.spec.plugins])
    token = active_cluster.set(cluster)
    try:
        yield
    finally:
        active_cluster.reset(token)
        cluster.close()


def travelling(task: Task) -> Task:
    """Return a task as it is sent to workers: its paths absolute, without the teacher's and the server's keys."""
    bare: dict[str, Any] = {"teacher": Component(type="offline"), "server": ServerSpec()}
    return replace(task, file=task.file.resolve(), spec=task.spec.model_copy(update=bare))
