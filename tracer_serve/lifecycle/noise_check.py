"""Estimate how often the teacher agrees with itself, by asking it again about stored inputs."""

import asyncio
import itertools
from collections.abc import Sequence

import numpy as np

from tracer_serve.components.factory import make_teacher, teacher_fingerprint
from tracer_serve.components.teachers._ask_many import BoundedCalls, ask_many, concurrency_of
from tracer_serve.components.teachers._batch.opening import make_batch_teacher
from tracer_serve.components.teachers._spend_limit import share_spend
from tracer_serve.config.load import Task
from tracer_serve.errors import FitError, TeacherError
from tracer_serve.fit.progress import Progress
from tracer_serve.fit.teacher_noise import KEY, TeacherNoise
from tracer_serve.lifecycle.teacher_change import known_labels
from tracer_serve.lifecycle.training_set import drawn
from tracer_serve.protocols import Teacher
from tracer_serve.storage.traces import TraceStore
from tracer_serve.types import Answer, Text

_STAGE = "asking the teacher again"


def estimate_noise(
    task: Task, store: TraceStore, inputs: int, progress: Progress, *, batch_api: bool = False
) -> TeacherNoise:
    """Send a random sample of stored inputs to the teacher again, and store the estimate.

    The inputs are a fair sample of traffic without duplicates, so no cache of the teacher's client answers.

    Parameters
    ----------
    batch_api : ask by the provider's batch API, at half the price; an interrupted check continues its batch

    Raises
    ------
    FitError
        If the store contains no input that the teacher has labelled.
    TeacherError
        If the teacher answers none of them.
    """
    texts, labels = _sample(store, inputs, task)
    known = known_labels(task, store)
    by_batch = make_batch_teacher(task, known, store.values, f"noise {inputs}") if batch_api else None
    at_once = len(texts) if by_batch else concurrency_of(task.spec.teacher.params) // 2  # serving asks it as well
    answers = asyncio.run(_ask_all(by_batch or _teacher(task, store, known), texts, at_once, progress))
    if by_batch is not None:
        by_batch.finish()
    given = [(label, answer.label) for label, answer in zip(labels, answers, strict=True) if isinstance(answer, Answer)]
    if not given:
        raise next(answer for answer in answers if isinstance(answer, TeacherError))
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
            "the store contains no input that the teacher has labelled; import traces (`tracer-serve import TASK.yaml"
            " traces.jsonl`) or serve first"
        )
    present = task.spec.label_changes.translation
    labels = [columns.label.values[columns.label.codes[row]] for row in once.values()]
    return list(once), [present.get(label, label) for label in labels]


def _teacher(task: Task, store: TraceStore, known: tuple[str, ...]) -> Teacher:
    teacher = make_teacher(task, known)
    share_spend(teacher, store.values)
    return teacher


async def _ask_all(
    teacher: Teacher, texts: Sequence[Text], at_once: int, progress: Progress
) -> list[Answer | TeacherError]:
    asked, calls = itertools.count(1), BoundedCalls(max(1, at_once))
    try:
        return await ask_many(teacher, texts, calls, lambda: progress(_STAGE, next(asked), len(texts)))
    finally:
        await teacher.close()
