"""A task in this process: the server's decisions without HTTP, its fit, scan and report."""

import asyncio
import atexit
import functools
import inspect
import json
import logging
import random
import tempfile
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from pydantic import BaseModel

from tracer_serve.api.results import Classified, Report
from tracer_serve.components.factory import load_plugins, make_embedders, teacher_fingerprint
from tracer_serve.components.teachers._labels import labels_of
from tracer_serve.config.load import Task, load_task
from tracer_serve.errors import ArtifactError, BadInputError, FitError, TeacherError
from tracer_serve.fit.dataset import Rows
from tracer_serve.forms.known import NATIVE
from tracer_serve.infra.redaction import WITHHELD
from tracer_serve.lifecycle.imports import import_traces
from tracer_serve.lifecycle.refit import RefitOutcome, refit
from tracer_serve.policy.decision import CERTIFIED
from tracer_serve.report.scan import ALPHAS, Scan, scan
from tracer_serve.serving.runtime import Runtime, running
from tracer_serve.storage.traces import new_id
from tracer_serve.storage.versions import open_versions
from tracer_serve.storage.versions.opening import store_of
from tracer_serve.types import Answer, Text, Trace, Verdict

P = ParamSpec("P")
R = TypeVar("R")
Label = Callable[[Any], Any]
_log = logging.getLogger(__name__)


class _Function:
    """The caller's own function in the place of the task's teacher."""

    def __init__(self, task: Task) -> None:
        self.fingerprint = teacher_fingerprint(task)
        self.labels, self.function = labels_of(task.spec), cast("Label | None", None)

    async def label(self, text: Text) -> Answer:
        if self.function is None:
            raise TeacherError("no fallback was given; use route(text, fallback=...)", reason="unavailable")
        try:
            answer = await asyncio.to_thread(self.function, text)
        except Exception as error:
            problem = f"the fallback raised {type(error).__name__}: {error}"
            raise TeacherError(problem, reason="unavailable") from error
        return Answer(self.parse(answer))

    def parse(self, answer: object) -> str:
        """Return the label of an answer: a text, or a mapping or pydantic model with the task's fields."""
        if isinstance(answer, BaseModel):
            answer = answer.model_dump(mode="json")
        return self.labels.parse(json.dumps(answer) if isinstance(answer, Mapping) else str(answer))

    async def close(self) -> None:
        """Do nothing: the caller owns the function."""


class LocalTask:
    """A task served in this process.

    The version that serves is loaded on first use and follows refits. Use it as a context manager, or call `close`;
    at exit it is closed anyway.

    Parameters
    ----------
    task : the loaded spec

    Examples
    --------
    >>> import tracer_serve as ts
    >>> task = ts.load("configs/banking.yaml")  # doctest: +SKIP
    >>> task.fit()  # doctest: +SKIP
    >>> task.classify(["Where is my card?"])  # doctest: +SKIP
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._function = _Function(task)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack, self._lock = AsyncExitStack(), threading.Lock()
        self._runtime: Runtime | None = None

    def classify(self, texts: Sequence[Text], *, user: str | None = None) -> list[Classified]:
        """Decide on n texts or pairs as the server does; the teacher is not called and nothing is stored.

        Parameters
        ----------
        user : decides in `mode: canary` whether certified answers count

        Returns
        -------
        One result per text; the label of a deferred text is None.

        Raises
        ------
        BadInputError
            If a text is empty.
        """
        for i, text in enumerate(texts):
            if not all(part.strip() for part in ([text] if isinstance(text, str) else text)):
                raise BadInputError(f"text {i} is empty")
        metadata = {} if user is None else {"user": user}
        found = self._run(self._started().router.preview(texts, metadata))
        return [_classified(verdict, reason, version) for verdict, reason, version in found]

    def route(self, text: Text, fallback: Label, *, user: str | None = None) -> str:
        """Return the surrogate's certified label, else that of `fallback`, which becomes a trace.

        Of a task with fields the label is JSON.

        Parameters
        ----------
        fallback : called with the text in another thread; the last one given also answers audits. With fields it
            returns a mapping or a pydantic model

        Raises
        ------
        TeacherError
            If the fallback raises, or returns no label of the task.
        """
        router = self._started().router
        self._function.function = fallback
        (result,) = self._run(router.route([text], {} if user is None else {"user": user}))
        if isinstance(result, Exception):
            raise result
        return result.label

    def record(self, text: Text, label: object) -> None:
        """Store what an LLM answered to a text as a trace: a label, or a mapping or model with the task's fields.

        Raises
        ------
        TeacherError
            If it is no label of the task.
        """
        runtime = self._started()
        redact = runtime.router.redact
        kept = text if redact is None else redact(text)
        given = self._function.parse(label)
        if kept is WITHHELD:
            return
        trace = Trace(
            id=new_id(),
            ts=datetime.now(UTC),
            task=self.task.spec.name,
            input=kept,
            teacher_label=given,
            label_source="teacher",
            decision="deferred",
            u=random.random(),
            teacher_fingerprint=self._function.fingerprint,
            form=NATIVE,
        )
        self._run(runtime.writer.commit(trace))

    def fit(self) -> RefitOutcome:
        """Import new traces, fit and certify a version, and activate it if it may serve."""
        return refit(self.task, "python")

    def scan(self, alphas: Sequence[float] = ALPHAS) -> Scan:
        """Estimate the coverage at several alphas on the stored traces; nothing is written but imported traces."""
        load_plugins(self.task)
        with closing(store_of(self.task)) as store:
            import_traces(self.task, store)
            labelled = list(store.traces.labelled())
        if not labelled:
            raise FitError(f"{self.task.spec.name} has no labelled traces; import some, or record them")
        rows = Rows.of([trace.input for trace in labelled], [str(trace.teacher_label) for trace in labelled])
        with tempfile.TemporaryDirectory(prefix="tracer-serve-scan-") as cache:
            return scan(self.task, rows, make_embedders(self.task, Path(cache)), alphas=alphas)

    def report(self, version: int | None = None) -> Report:
        """Return the report of a version, by default of the one that serves; a notebook shows its page."""
        versions = open_versions(self.task)
        number = versions.current() if version is None else version
        if number is None:
            raise ArtifactError(f"{self.task.spec.name} has no version yet; call fit()")
        versions.verify(number)
        return Report.read(number, versions.folder(number))

    def close(self) -> None:
        """Stop what was started; traces that wait are written."""
        with self._lock:
            if self._loop is None:
                return
            self._run(self._stack.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = self._runtime = None
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _started(self) -> Runtime:
        with self._lock:
            if self._runtime is None:
                self._loop = loop = asyncio.new_event_loop()
                # a daemon: the interpreter's exit does not wait for it, and `atexit` still finds it running
                threading.Thread(target=_serve_loop, args=(loop,), name="tracer-api", daemon=True).start()
                atexit.register(self.close)
                entered = self._stack.enter_async_context(running(self.task, schedule=False, teacher=self._function))
                self._runtime = self._run(entered)
            return self._runtime

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _serve_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _classified(verdict: Verdict | BadInputError | None, reason: str, version: int | None) -> Classified:
    if isinstance(verdict, BadInputError):
        raise verdict
    handled = verdict is not None and reason == CERTIFIED
    label = verdict.label if verdict is not None and handled else None
    score = None if verdict is None else verdict.score
    return Classified(label, "handled" if handled else "deferred", reason, score, version)


def load(file: Path | str) -> LocalTask:
    """Load a task from its YAML; keys of teacher and server may be unset.

    Raises
    ------
    SpecError
        If the YAML is invalid.
    """
    return LocalTask(load_task(file, need_keys=False))


def watch(task: LocalTask) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function from text to label so that its answers become traces of the task.

    The function always runs, and its result is returned unchanged. Its first argument is the text. An answer that is no
    label of the task is logged and not stored. Coroutine functions are supported.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        def keep(text: Text, answer: object) -> None:
            try:
                task.record(text, answer)
            except TeacherError as error:
                _log.warning("%s: an answer was not recorded: %s", task.task.spec.name, error)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def watched_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                answer = await function(*args, **kwargs)
                await asyncio.to_thread(keep, cast("Text", args[0]), answer)
                return answer

            return cast("Callable[P, R]", watched_async)

        @functools.wraps(function)
        def watched(*args: P.args, **kwargs: P.kwargs) -> R:
            answer = function(*args, **kwargs)
            keep(cast("Text", args[0]), answer)
            return answer

        return watched

    return decorate
