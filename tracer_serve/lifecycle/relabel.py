"""Relabel stored texts with a new teacher, so that a refit can certify within minutes, and count changed labels.

The texts are the latest fair sample of traffic, so their new labels calibrate like any others and replace the old ones.
After an alarm only texts that came since are such a sample.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np

from tracer_serve.components.factory import make_teacher
from tracer_serve.components.teachers._ask_many import BoundedCalls, ask_many, concurrency_of
from tracer_serve.components.teachers._batch.opening import make_batch_teacher
from tracer_serve.components.teachers._batch.teacher import BatchTeacher
from tracer_serve.components.teachers._spend_limit import share_spend
from tracer_serve.config.load import Task
from tracer_serve.errors import TeacherError
from tracer_serve.fit.progress import Progress
from tracer_serve.lifecycle.gate_state.closing import closing_of
from tracer_serve.lifecycle.teacher_change import TeacherSince, known_labels
from tracer_serve.lifecycle.training_set import drawn
from tracer_serve.storage.traces import TraceStore, new_id
from tracer_serve.types import Answer, Text, Trace

_BATCH = 64
_FIRST_BATCH = 10  # detects a teacher without usable labels early


@dataclass(frozen=True, slots=True)
class LabelChanges:
    """How the labels of a sample changed between two teachers.

    Parameters
    ----------
    asked, failed : texts, and how many of them received no label from the new teacher
    cost : of the answers, in the price's currency
    moves : (old label, new label, texts) where they differ, most frequent first
    before, after : fingerprints of the teachers
    """

    before: str
    after: str
    asked: int
    failed: int
    cost: float
    moves: tuple[tuple[str, str, int], ...]

    @property
    def moved(self) -> int:
        """How many labels differ."""
        return sum(n for _, _, n in self.moves)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"moves": [list(move) for move in self.moves]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` returned."""
        return cls(**values | {"moves": tuple((old, new, n) for old, new, n in values["moves"])})


def replay(task: Task, store: TraceStore, since: TeacherSince, rows: int, progress: Progress) -> LabelChanges:
    """Ask the current teacher about the latest `rows` fair texts that it has not labelled, and store its answers.

    It may be repeated after a crash: answered texts are not asked again, and a batch that is under way is waited for.

    Raises
    ------
    TeacherError
        If the teacher is down, or labels none of the first texts. Its answers so far are stored.
    """
    texts, old = _sample(store, since, rows, task.spec.fit.max_traces)
    return asyncio.run(_replay(task, store, since, list(zip(texts, old, strict=True)), progress))


async def _replay(
    task: Task, store: TraceStore, since: TeacherSince, pairs: list[tuple[Text, str]], progress: Progress
) -> LabelChanges:
    known, by_batch = known_labels(task, store), task.spec.traces.migrate_via == "batch"
    teacher = make_batch_teacher(task, known, store.values, "migrate") if by_batch else make_teacher(task, known)
    at_once = len(pairs) if by_batch else concurrency_of(task.spec.teacher.params) // 2  # serving asks it as well
    calls = BoundedCalls(max(1, at_once))
    if not by_batch:
        share_spend(teacher, store.values)
    moves: Counter[tuple[str, str]] = Counter()
    failed, cost, done = 0, 0.0, 0
    try:
        for batch in [pairs] if by_batch else _batches(pairs):
            answers = await ask_many(teacher, [text for text, _ in batch], calls)
            made = [(text, old, a) for (text, old), a in zip(batch, answers, strict=True) if isinstance(a, Answer)]
            failed += len(batch) - len(made)
            done += len(batch)
            store.traces.add(_trace(store.task, text, answer, since.fingerprint) for text, _, answer in made)
            moves.update((old, answer.label) for _, old, answer in made if old != answer.label)
            cost += sum(answer.cost for _, _, answer in made)
            progress("asking the new teacher", done, len(pairs))
            if calls.down is not None:
                raise calls.down
            if done == failed:
                raise next(a for a in answers if isinstance(a, TeacherError))
        if isinstance(teacher, BatchTeacher):
            teacher.finish()
    finally:
        await teacher.close()
    table = tuple((old, new, n) for (old, new), n in sorted(moves.items(), key=lambda move: (-move[1], move[0])))
    return LabelChanges(since.before, since.fingerprint, len(pairs), failed, cost, table)


def _sample(store: TraceStore, since: TeacherSince, rows: int, most: int) -> tuple[list[Text], list[str]]:
    """Return the latest fair texts of other teachers, oldest first, and their labels."""
    closing = closing_of(store)
    columns = store.traces.columns(None if closing is None else closing.after, newest=store.traces.newest(most))
    own = columns.fingerprint.is_value(since.fingerprint)
    known = {columns.texts[i] for i in np.flatnonzero(own)}
    labels = columns.label.decode()
    latest = [int(i) for i in np.flatnonzero(drawn(columns) & ~own)[::-1] if columns.texts[i] not in known][:rows]
    return [columns.texts[i] for i in latest[::-1]], [str(labels[i]) for i in latest[::-1]]


def _batches(pairs: list[tuple[Text, str]]) -> Iterator[list[tuple[Text, str]]]:
    if pairs:
        yield pairs[:_FIRST_BATCH]
    for start in range(_FIRST_BATCH, len(pairs), _BATCH):
        yield pairs[start : start + _BATCH]


def _trace(task: str, text: Text, answer: Answer, fingerprint: str) -> Trace:
    return Trace(
        id=new_id(),
        ts=datetime.now(UTC),
        task=task,
        input=text,
        teacher_label=answer.label,
        label_source="teacher",
        teacher_fingerprint=fingerprint,
        usage=answer.usage,
        cost=answer.cost,
        latency_ms={"teacher": round(answer.latency_ms, 3)},
        metadata={"replay": True},
    )
