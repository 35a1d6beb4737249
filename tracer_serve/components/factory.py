"""Build a task's components from its spec; errors name the path in the YAML."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from tracer_serve.components.embedders._cache import CachedEmbedder
from tracer_serve.components.embedders._pairs import PairEmbedder
from tracer_serve.components.plugins import load_plugin
from tracer_serve.components.pretrained import MINILM
from tracer_serve.components.registry import Registry, acceptors, embedders, redactors, surrogates, teachers
from tracer_serve.config.base import Component
from tracer_serve.config.load import Task
from tracer_serve.errors import PluginError, SpecError
from tracer_serve.protocols import Acceptor, Embedder, Imitating, Redactor, Surrogate, Teacher

C = TypeVar("C")
_ENCODERS = ("sentence_transformers", "static")
_Named = tuple[Registry[Any], Component, str]


def load_plugins(task: Task) -> dict[str, str]:
    """Import the plugin files of a task; return the sha256 of each, by the path the YAML gives it."""
    return {str(path): load_plugin(task.resolve(path)) for path in task.spec.plugins}


def embedders_of(task: Task) -> list[tuple[Component, str]]:
    """Return `Spec.embedders`, each with its path in the YAML."""
    surrogates = enumerate(task.spec.surrogates)
    named = [(task.spec.embedder, "embedder"), *((s.embedder, f"surrogates[{i}].embedder") for i, s in surrogates)]
    return [next((one, path) for one, path in named if one == component) for component in task.spec.embedders]


def make_embedders(task: Task, cache: Path | None = None) -> tuple[Embedder, ...]:
    """Build all embedders of the task in the order of `Spec.embedders`; `cache` as in `make_embedder`."""
    return tuple(make_embedder(task, cache, place) for place in range(len(task.spec.embedders)))


def make_embedder(task: Task, cache: Path | None = None, place: int = 0) -> Embedder:
    """Build an unfitted embedder of the task, wrapped for pairs if the task classifies pairs.

    Parameters
    ----------
    cache : folder that stores the vectors of a frozen embedder, so that a refit embeds only new texts
    place : index in `Spec.embedders`; 0 is the task's, the others are embedders of single surrogates
    """
    component, path = embedders_of(task)[place]
    embedder = _make(task, embedders, component, path)
    if cache is not None and not embedder.trainable:
        embedder = CachedEmbedder(embedder, cache)
    elif cache is not None and isinstance(embedder, Imitating):
        embedder.encoder = CachedEmbedder(embedder.encoder, cache)
    return PairEmbedder(embedder) if task.spec.input == "pair" else embedder


def make_surrogate(task: Task, index: int) -> Surrogate:
    """Build the `index`-th surrogate of the spec, unfitted.

    A surrogate may take two more parameters from the task: the labels' `descriptions`, and `source`, the model and
    revision of its embedder.
    """
    context: dict[str, Any] = {"descriptions": task.spec.labels if isinstance(task.spec.labels, dict) else {}}
    embedder = task.spec.embedders[task.spec.view_of(index)]
    if embedder.type in _ENCODERS:
        params = _absolute(task, embedders, embedder)
        model = params.get("folder") or params.get("model", MINILM)
        context["source"] = (str(model), params.get("revision"))
    return _make(task, surrogates, task.spec.surrogates[index], f"surrogates[{index}]", context)


def make_acceptor(task: Task, index: int) -> Acceptor:
    """Build the `index`-th acceptor of the spec, unfitted."""
    return _make(task, acceptors, task.spec.acceptors[index], f"acceptors[{index}]")


def make_teacher(task: Task, known: tuple[str, ...] = ()) -> Teacher:
    """Build the teacher; for an open label set, `known` are the labels that its prompt offers."""
    described = task.spec.labels if isinstance(task.spec.labels, dict) else {}
    fields = task.spec.answer_fields
    context = {"labels": task.spec.label_names, "descriptions": described, "known": known, "fields": fields}
    return _make(task, teachers, task.spec.teacher, "teacher", context)


def teacher_fingerprint(task: Task) -> str:
    """Return the fingerprint of the spec's teacher."""
    return make_teacher(task).fingerprint


def make_redactors(task: Task) -> tuple[Redactor, ...]:
    """Build the task's redactors, in order."""
    listed = enumerate(task.spec.traces.redact)
    return tuple(_make(task, redactors, component, f"traces.redact[{i}]") for i, component in listed)


def paths_of(task: Task) -> Iterator[tuple[str, Path]]:
    """Yield the path in the YAML and the value of each parameter that names a file or folder."""
    spec = task.spec
    one: list[_Named] = [(embedders, component, path) for component, path in embedders_of(task)]
    one.append((teachers, spec.teacher, "teacher"))
    lists: tuple[tuple[Registry[Any], tuple[Component, ...], str], ...] = (
        (surrogates, spec.surrogates, "surrogates"),
        (acceptors, spec.acceptors, "acceptors"),
        (redactors, spec.traces.redact, "traces.redact"),
    )
    many = ((registry, part, f"{path}[{i}]") for registry, parts, path in lists for i, part in enumerate(parts))
    for registry, component, path in (*one, *many):
        for value in _paths(registry, component).values():
            yield from ((path, Path(item)) for item in (value if isinstance(value, list | tuple) else [value]))


def _make(
    task: Task, registry: Registry[C], component: Component, path: str, context: Mapping[str, Any] | None = None
) -> C:
    try:
        params = _absolute(task, registry, component)
        return registry.build(component.type, params, context)
    except PluginError as error:
        raise SpecError(str(error), file=task.file, path=path) from error


def _absolute(task: Task, registry: Registry[C], component: Component) -> dict[str, Any]:
    """Return the parameters with file paths resolved relative to the YAML."""

    def resolved(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [resolved(item) for item in value]
        return task.resolve(Path(value)) if isinstance(value, str) else value

    return component.params | {key: resolved(value) for key, value in _paths(registry, component).items()}


def _paths(registry: Registry[Any], component: Component) -> dict[str, Any]:
    """Return the parameters that name files or folders."""
    fields = registry.schema(component.type).model_fields
    return {
        key: value
        for key, value in component.params.items()
        if key in fields and _holds_path(fields[key].annotation) and value is not None
    }


def _holds_path(annotation: Any) -> bool:
    return annotation is Path or any(_holds_path(part) for part in get_args(annotation))
