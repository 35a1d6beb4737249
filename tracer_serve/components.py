"""A task's components, made from its spec: plugins first, then by registry, errors with the YAML's path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from tracer_serve.embedding_cache import CachedEmbedder
from tracer_serve.errors import PluginError, SpecError
from tracer_serve.load import Task
from tracer_serve.pairs import PairEmbedder
from tracer_serve.plugins import load_plugin
from tracer_serve.protocols import Acceptor, Embedder, Redactor, Surrogate, Teacher
from tracer_serve.registry import Registry, acceptors, embedders, redactors, surrogates, teachers
from tracer_serve.spec import Component

C = TypeVar("C")
_FILES = (Path, Path | None, tuple[Path, ...], Path | tuple[Path, ...])


def load_plugins(task: Task) -> dict[str, str]:
    """Import the plugin files of a task; return the sha256 of each, by the path the YAML gives it."""
    return {str(path): load_plugin(task.resolve(path)) for path in task.spec.plugins}


def make_embedder(task: Task, cache: Path | None = None) -> Embedder:
    """Make the task's embedder, not yet fitted; for pairs, where the task classifies pairs.

    Parameters
    ----------
    cache : folder that keeps the vectors of a frozen embedder, so that a refit embeds only what is new
    """
    embedder = _make(task, embedders, task.spec.embedder, "embedder")
    if cache is not None and not embedder.trainable:
        embedder = CachedEmbedder(embedder, cache)
    return PairEmbedder(embedder) if task.spec.input == "pair" else embedder


def make_surrogate(task: Task, index: int) -> Surrogate:
    """Make a fresh, unfitted surrogate: the `index`-th of the spec."""
    return _make(task, surrogates, task.spec.surrogates[index], f"surrogates[{index}]")


def make_acceptor(task: Task, index: int) -> Acceptor:
    """Make a fresh, unfitted acceptor: the `index`-th of the spec."""
    return _make(task, acceptors, task.spec.acceptors[index], f"acceptors[{index}]")


def make_teacher(task: Task, labels: tuple[str, ...] = ()) -> Teacher:
    """Make the teacher; without a closed label set, the spec's or else `labels`, it may give any label."""
    described = task.spec.labels if isinstance(task.spec.labels, dict) else {}
    context = {"labels": task.spec.label_names or labels, "descriptions": described}
    return _make(task, teachers, task.spec.teacher, "teacher", context)


def teacher_fingerprint(task: Task) -> str:
    """Return the fingerprint of the teacher that the spec names."""
    return make_teacher(task).fingerprint


def make_redactors(task: Task) -> tuple[Redactor, ...]:
    """Make the task's redactors, in their order."""
    listed = enumerate(task.spec.traces.redact)
    return tuple(_make(task, redactors, component, f"traces.redact[{i}]") for i, component in listed)


def _make(
    task: Task, registry: Registry[C], component: Component, path: str, context: Mapping[str, Any] | None = None
) -> C:
    try:
        params = _absolute(task, registry, component)
        return registry.build(component.type, params, context)
    except PluginError as error:
        raise SpecError(str(error), file=task.file, path=path) from error


def _absolute(task: Task, registry: Registry[C], component: Component) -> dict[str, Any]:
    """Return the parameters with every path made relative to the YAML."""
    fields = registry.schema(component.type).model_fields

    def settle(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [settle(item) for item in value]
        return task.resolve(Path(value)) if isinstance(value, str) else value

    return {
        key: settle(value) if key in fields and _holds_path(fields[key].annotation) else value
        for key, value in component.params.items()
    }


def _holds_path(annotation: Any) -> bool:
    return annotation is Path or any(_holds_path(part) for part in get_args(annotation))
