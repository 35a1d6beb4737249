"""Classify a file of texts with the current version, in memory that does not grow with the file.

Reading, embedding and writing overlap, so the embedder never waits for the disk. The decision rule is that of a request
over HTTP: deferred texts are left without a label, or the teacher is asked about them.
"""

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeGuard

from tracer_serve.components.teachers._ask_many import DOWN, BoundedCalls
from tracer_serve.errors import BadInputError, TeacherError
from tracer_serve.infra.redaction import WITHHELD
from tracer_serve.policy.decision import CERTIFIED, decide
from tracer_serve.serving.active_version import ActiveVersion
from tracer_serve.serving.batch.input_lines import InputLine
from tracer_serve.serving.batch.output_files import ADDED, Row, Sink
from tracer_serve.serving.batch.prefetch import prefetch
from tracer_serve.serving.router import Result, Router
from tracer_serve.types import Text, Vectors

BATCH = 2_048
"""Texts that are embedded and written together; an interruption loses at most one batch, seconds of work."""

Batch = Sequence[InputLine]


@dataclass(slots=True)
class FileSummary:
    """Counts of the classified rows.

    Parameters
    ----------
    rows : written in this run
    decisions : rows by decision: ``handled``, ``deferred``, ``refused`` (without a text), ``error``
    reasons : rows that the surrogate did not answer, by reason
    """

    rows: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, rows: Sequence[Row]) -> None:
        """Count a batch."""
        self.rows += len(rows)
        self.decisions.update(row["tracer_decision"] for row in rows)
        self.reasons.update(row["tracer_reason"] for row in rows if row["tracer_decision"] in ("deferred", "error"))


def classify(
    lines: Iterable[InputLine], router: Router, sink: Sink, *, batch: int = BATCH
) -> Generator[FileSummary, None, None]:
    """Write every line with its decision, and yield the counts after each batch; the teacher is not asked.

    Deferred rows have no label. No row becomes a trace, since there is no teacher's answer.
    """
    tally = FileSummary()
    for part in prefetch(_embedded(prefetch(_batches(lines, sink, batch)), router)):
        rows = _decided(router, *part)
        sink.write(rows)
        tally.add(rows)
        yield tally
    sink.finish()


async def classify_asking(
    lines: Iterable[InputLine], router: Router, sink: Sink, *, at_once: int, batch: int = BATCH
) -> AsyncIterator[FileSummary]:
    """Classify through the router: the teacher labels deferred rows, and every row becomes a trace.

    Parameters
    ----------
    at_once : most concurrent texts

    Raises
    ------
    TeacherError
        If the teacher is down. Written rows are kept, and the same call continues after them.
    """
    tally, calls = FileSummary(), BoundedCalls(at_once)

    async def route(text: Text, user: str | None) -> Result:
        (result,) = await router.route([text], {} if user is None else {"user": user})
        if _is_down(result):
            raise result
        return result

    async def ask(line: InputLine) -> Result | None:
        text = line.text
        try:
            return None if text is None else await calls.run(lambda: route(text, line.user))
        except TeacherError as error:
            return error

    for part in _batches(lines, sink, min(batch, 16 * at_once)):
        results = await asyncio.gather(*map(ask, part))
        before_outage = itertools.takewhile(lambda pair: not _is_down(pair[1]), zip(part, results, strict=True))
        rows = [_refused(line) if result is None else _routed(line, result) for line, result in before_outage]
        await asyncio.to_thread(sink.write, rows)  # including answers before an outage, which were paid for
        tally.add(rows)
        yield tally
        if problem := next(filter(_is_down, results), None):
            raise problem
    await asyncio.to_thread(sink.finish)


def _batches(lines: Iterable[InputLine], sink: Sink, size: int) -> Iterator[Batch]:
    """Group the lines after those that an earlier run has written."""
    rest = islice(lines, sink.rows, None)
    while part := list(islice(rest, size)):
        yield part


def _embedded(
    parts: Iterable[Batch], router: Router
) -> Iterator[tuple[Batch, ActiveVersion | None, list[Text], Vectors | None]]:
    """Yield each batch with the current version, its redacted texts, and the first stage's vectors."""
    for part in parts:
        loaded, redact = router.live.loaded, router.redact
        texts = [line.text if redact is None else redact(line.text) for line in part if line.text is not None]
        vectors = None if loaded is None or not texts else loaded.policy.stages[0].view.embed(texts)
        yield part, loaded, texts, vectors


def _decided(
    router: Router, part: Batch, loaded: ActiveVersion | None, texts: list[Text], vectors: Vectors | None
) -> list[Row]:
    """Return the output rows of a batch, by the policy's verdicts."""
    if loaded is None or vectors is None:
        return [_refused(line) if line.text is None else _row(line, "deferred", "no_version") for line in part]
    policy = loaded.policy
    found = policy.score(texts, {policy.stages[0].view: vectors})
    labels = policy.classes[found.top].tolist()
    verdicts = zip(texts, labels, found.score.tolist(), found.reason.tolist(), strict=True)
    rows = []
    for line in part:
        if line.text is None:
            rows.append(_refused(line))
            continue
        text, label, score, reason = next(verdicts)
        facts = {"score": score, "version": loaded.number}
        reason = decide(reason, router.conditions(loaded, line.user), in_burst=router.watch.bursts.defers(text))
        if text is WITHHELD:
            rows.append(_row(line, "deferred", "policy_failed", version=loaded.number))
        elif reason == CERTIFIED:
            rows.append(_row(line, "handled", reason, label=label, **facts))
        else:
            rows.append(_row(line, "deferred", reason, **facts))
    return rows


def _is_down(result: Result | None) -> TypeGuard[TeacherError]:
    """Whether a text has no answer because the teacher is down."""
    return isinstance(result, TeacherError) and result.reason in DOWN


def _routed(line: InputLine, result: Result) -> Row:
    """Return the row of a routed text."""
    if isinstance(result, TeacherError):
        return _row(line, "error", result.reason)
    if isinstance(result, BadInputError):
        return _row(line, "refused", str(result))
    score = None if result.verdict is None else result.verdict.score
    return _row(line, result.kind, result.reason, label=result.label, score=score, version=result.version)


def _refused(line: InputLine) -> Row:
    return _row(line, "refused", line.problem)


def _row(
    line: InputLine,
    decision: str,
    reason: str,
    *,
    label: str | None = None,
    score: float | None = None,
    version: int | None = None,
) -> Row:
    finite = score if score is not None and math.isfinite(score) else None
    return {**line.record, **dict(zip(ADDED, (line.number, label, decision, finite, reason, version), strict=True))}
