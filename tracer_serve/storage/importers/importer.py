"""Traces from a file into the store: all of them or none, and once."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tracer_serve.errors import ImportFileError
from tracer_serve.infra.redaction import WITHHELD, Redact
from tracer_serve.infra.uuid7 import new_id
from tracer_serve.storage.importers.items import Format, LabelledText, ReadOptions, Refusal
from tracer_serve.storage.importers.parse import read_items
from tracer_serve.storage.importers.readers import opened, split_key
from tracer_serve.storage.importers.summary import ImportSummary, survey
from tracer_serve.storage.traces.store import TraceStore
from tracer_serve.types import Trace

_SHOWN = 5


def import_file(
    store: TraceStore,
    path: Path | str,
    *,
    labels: Sequence[str] = (),
    pair: bool | None = None,
    fmt: Format = "auto",
    text_field: str | tuple[str, str] | None = None,
    label_field: str | None = None,
    requests: Path | None = None,
    teacher: str | None = None,
    any_teacher: bool = False,
    fingerprint: str | None = None,
    fair: bool = True,
    since: datetime | None = None,
    redact: Redact | None = None,
    skip_bad: bool = False,
    dry_run: bool = False,
) -> ImportSummary:
    """Import the traces of a file: atomic, durable on return, and without effect the second time.

    The file is read twice: once to check and count, without a lock, and once to write. One whose very bytes were
    imported before is not read again, and its summary has no counts. One that begins with them, as a log that grew,
    brings the lines after them.

    Parameters
    ----------
    labels, pair, fmt, text_field, label_field, requests : see `ReadOptions`
    teacher : the model that must have given the labels; a file that says another is refused
    any_teacher : import labels of several teachers, or of another one, all the same
    fingerprint : the teacher's fingerprint to put on the rows, where they are known to be its answers
    fair : whether the rows are a fair sample of traffic; if not, they train and never calibrate
    since : rows that the file dates before this are no fair sample of the traffic of today
    redact : what of a text is stored
    skip_bad : leave out the lines that are refused; otherwise one refusal refuses the file
    dry_run : count only, write nothing

    Raises
    ------
    ImportFileError
        The file cannot be read, holds no trace, holds lines that are refused, or answers of another teacher.
        Nothing was imported.
    StoreError
        The store cannot be written. Nothing was imported.
    """
    path = Path(path)
    reading = ReadOptions(fmt, tuple(labels), pair, text_field, label_field, requests)
    sha256 = _sha256(path)
    already = store.imports.contains(sha256)
    if already and not dry_run:
        return ImportSummary(path, already=True, sha256=sha256)
    summary = survey_file(path, reading, skip_bad=skip_bad)
    summary = replace(summary, dry_run=dry_run, sha256=sha256, already=already)
    if not any_teacher:
        _check_teachers(summary, teacher)
    if dry_run:
        return summary
    known = _known_lines(path, store.imports.digests())
    new = (item for item in read_items(path, reading) if isinstance(item, LabelledText) and item.line > known)
    stamped = (_trace(item, store.task, fingerprint) for item in new)
    kept = (_kept(trace, path, redact, fair=fair and (since is None or trace.ts >= since)) for trace in stamped)
    rows = _unchanged(summary, kept)
    imported = store.imports.add(rows, sha256=sha256, path=str(path))
    return replace(summary, imported=imported, already=imported == 0)


def survey_file(path: Path, reading: ReadOptions, *, skip_bad: bool = False) -> ImportSummary:
    """Count what a file holds, and refuse one that holds no trace, or, unless `skip_bad`, a line that is none.

    Raises
    ------
    ImportFileError
        As said, naming the first lines that are refused; or the file cannot be read.
    """
    summary = survey(path, read_items(path, reading))
    _check(summary, skip_bad=skip_bad)
    return summary


def read_traces(
    path: Path | str, task: str, reading: ReadOptions | None = None, *, skip_bad: bool = False
) -> Iterator[Trace]:
    """Stream the traces of a file without a store.

    Raises
    ------
    ImportFileError
        The file cannot be read, or, unless `skip_bad`, at the first line that is refused.
    """
    path = Path(path)
    for item in read_items(path, reading or ReadOptions()):
        if isinstance(item, Refusal) and not skip_bad:
            raise ImportFileError(f"{path}: {item}")
        if isinstance(item, LabelledText):
            yield _trace(item, task, None)


def _trace(item: LabelledText, task: str, fingerprint: str | None) -> Trace:
    metadata = {"teacher_model": item.teacher, "user": item.user}
    return Trace(
        id=new_id(),
        ts=item.ts or datetime.now(UTC),
        task=task,
        input=item.text,
        teacher_label=item.label,
        label_source="import",
        teacher_fingerprint=fingerprint,
        usage=item.usage,
        cost=item.cost,
        metadata={name: value for name, value in metadata.items() if value is not None},
    )


def _kept(trace: Trace, path: Path, redact: Redact | None, *, fair: bool) -> Trace:
    """Return the trace as it is stored: redacted, and at a rate of 0, which draws nothing, where it only trains."""
    text = trace.input if redact is None else redact(trace.input)
    if text is WITHHELD:
        raise ImportFileError(f"{path}: a redactor failed on a text; nothing was imported. The log says which error")
    return replace(trace, input=text, audit_rate=1.0 if fair else 0.0)


def _unchanged(summary: ImportSummary, traces: Iterator[Trace]) -> Iterator[Trace]:
    """Pass the traces on; raise, and so undo the import, if the file was changed since it was counted."""
    yield from traces
    if _sha256(summary.path) != summary.sha256:
        raise ImportFileError(f"{summary.path}: was changed while it was imported; nothing was imported. Try again")


def _check(summary: ImportSummary, *, skip_bad: bool) -> None:
    if summary.refused and not skip_bad:
        leave = ", or leave them out: --skip-bad, of tracer-serve import and scan" if summary.rows else ""
        raise ImportFileError(
            f"{_told(summary)}\n{summary.refused:,} of {summary.rows + summary.refused:,} lines are refused, so"
            f" nothing was taken. Mend them{leave}"
        )
    if not summary.rows:
        why = f"; the first refusal: {summary.refusals[0]}" if summary.refusals else ""
        raise ImportFileError(f'{summary.path}: holds no traces{why}. One per line: {{"input": ..., "teacher": ...}}')


def _told(summary: ImportSummary) -> str:
    """Return the first refusals, one for each reason."""
    alike: dict[str, list[Refusal]] = {}
    for refusal in summary.refusals:
        alike.setdefault(refusal.reason, []).append(refusal)
    lines = [f"{summary.path}: {same[0]}{_as_many(len(same) - 1)}" for same in list(alike.values())[:_SHOWN]]
    rest = summary.refused - sum(len(same) for same in list(alike.values())[:_SHOWN])
    return "\n".join([*lines, f"... and {rest:,} more"] if rest else lines)


def _as_many(more: int) -> str:
    return f" (and so {more:,} more)" if more else ""


def _check_teachers(summary: ImportSummary, teacher: str | None) -> None:
    named = ", ".join(f"{name} ({rows} rows)" for name, rows in list(summary.teachers.items())[:_SHOWN])
    if len(summary.teachers) > 1:
        raise ImportFileError(
            f"{summary.path}: holds the answers of {len(summary.teachers)} teachers: {named}. A surrogate imitates one."
            " Import one teacher's rows, or, if this is meant: tracer-serve import --any-teacher"
        )
    if teacher is not None and any(not _same(teacher, name) for name in summary.teachers):
        raise ImportFileError(
            f"{summary.path}: holds the answers of {named}, the task's teacher is {teacher}."
            " If this is meant: tracer-serve import --any-teacher"
        )


def _same(teacher: str, name: str) -> bool:
    """Whether a log's model is the spec's: providers add their own name in front and the snapshot's date behind."""
    asked, answered = teacher.rsplit("/", 1)[-1], name.rsplit("/", 1)[-1]
    return answered == asked or answered.startswith(f"{asked}-20")


def _known_lines(path: Path, imported: frozenset[str]) -> int:
    """Return how many lines at the start of a text file are, byte for byte, a file that was imported before."""
    if not imported or path.suffix.lower() == ".gz" or split_key(path)[1] is not None:
        return 0
    known, digest = 0, hashlib.sha256()
    with opened(path, raw=True) as file:
        for number, line in enumerate(file, start=1):
            end = len(line.rstrip(b"\r\n"))
            for part in (line[:end], line[end:]):  # the file may have ended without a line break
                digest.update(part)
                known = number if digest.hexdigest() in imported else known
    return known


def _sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, and of the key where only one list of it is meant."""
    with opened(path, raw=True) as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update((split_key(path)[1] or "").encode())
    return digest.hexdigest()
