"""Asking the teacher again about stored inputs, to see how far it agrees with itself."""

import asyncio
from collections.abc import Sequence

import numpy as np

from tracer_serve.components.factory import make_teacher, teacher_fingerprint
from tracer_serve.config.load import Task
from tracer_serve.errors import FitError, TeacherError
from tracer_serve.fit.dataset import Progress
from tracer_serve.fit.teacher_noise import KEY, TeacherNoise
from tracer_serve.lifecycle.teacher_change import known_labels
from tracer_serve.lifecycle.training_set import drawn
from tracer_serve.storage.traces import TraceStore
from tracer_serve.types import Text

_AT_ONCE = 16
_STAGE = "asking the teacher again"


def estimate_noise(task: Task, store: TraceStore, inputs: int, progress: Progress) -> TeacherNoise:
    """Replay a random part of the stored inputs to the teacher, and keep the estimate in the store.

    The inputs are a fair sample of traffic, all different, so that no cache of the teacher's client ever answers.

    Raises
    ------
    FitError
        Where the store holds nothing to ask about.
    TeacherError
        Where the teacher answers none of them.
    """
    texts, labels = _sample(store, inputs, task)
    answers = asyncio.run(_ask_all(task, texts, known_labels(store), progress))
    given = [(label, answer) for label, answer in zip(labels, answers, strict=True) if answer is not None]
    noise = TeacherNoise(
        asked=len(given),
        agreed=sum(label == answer for label, answer in given),
        teacher=teacher_fingerprint(task),
        failed=len(answers) - len(given),
    )
    store.values.put(KEY, noise.to_json())
    return noise


def _sample(store: TraceStore, inputs: int, task: Task) -> tuple[list[Text], list[str]]:
    columns = store.traces.columns(newest=store.traces.newest(task.spec.fit.max_traces))
    usable = np.flatnonzero(columns.labelled & drawn(columns) & ~columns.source.is_value("human"))
    once: dict[Text, int] = {}
    for row in np.random.default_rng(task.spec.fit.seed).permutation(usable).tolist():
        once.setdefault(columns.texts[row], row)
        if len(once) == inputs:
            break
    if not once:
        raise FitError(
            "the store holds no input that the teacher has labelled; import traces (`tracer-serve import TASK.yaml"
            " traces.jsonl`) or serve first"
        )
    labels = [columns.label.values[columns.label.codes[row]] for row in once.values()]
    return list(once), labels


async def _ask_all(task: Task, texts: Sequence[Text], known: tuple[str, ...], progress: Progress) -> list[str | None]:
    """Return the answers in order, None where the teacher gave no label; never more at once than its own limit."""
    teacher = make_teacher(task, known)
    at_once = asyncio.Semaphore(min(_AT_ONCE, int(task.spec.teacher.params.get("max_concurrency", _AT_ONCE))))
    done, errors = 0, [TeacherError("the teacher was not asked", reason="unavailable")]

    async def ask(text: Text) -> str | None:
        nonlocal done
        async with at_once:
            try:
                return (await teacher.label(text)).label
            except TeacherError as error:
                errors.append(error)
                return None
            finally:
                done += 1
                progress(_STAGE, done, len(texts))

    try:
        answers = await asyncio.gather(*(ask(text) for text in texts))
    finally:
        await teacher.close()
    if all(answer is None for answer in answers):
        raise errors[-1]
    return answers
