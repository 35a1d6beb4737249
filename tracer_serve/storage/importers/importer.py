"""Import the traces of a file into the store: all or none, and only once."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tracer_serve.config.fields import AnswerFields
from tracer_serve.errors import ImportFileError
from tracer_serve.infra.redaction import WITHHELD, Redact
from tracer_serve.infra.uuid7 import new_id
from tracer_serve.storage.importers.items import Format, LabelledText, ReadOptions, Refusal
from tracer_serve.storage.importers.parse import read_items
from tracer_serve.storage.importers.readers import opened, split_key
from tracer_serve.storage.importers.summary import ImportSummary, survey
from tracer_serve.storage.importers.wrapper import with_wrapper
from tracer_serve.storage.traces.store import TraceStore
from tracer_serve.types import Trace

_SHOWN = 5


def import_file(
    store: TraceStore,
    path: Path | str,
    *,
    labels: Sequence[str] = (),
    fields: AnswerFields | None = None,
    pair: bool | None = None,
    fmt: Format = "auto",
    text_field: str | tuple[str, str] | None = None,
    label_field: str | None = None,
    requests: Path | None = None,
    keep_wrapper: bool = False,
    teacher: str | None = None,
    any_teacher: bool = False,
    fingerprint: str | None = None,
    fair: bool = True,
    since: datetime | None = None,
    redact: Redact | None = None,
    skip_bad: bool = False,
    dry_run: bool = False,
) -> ImportSummary:
    """Import the traces of a file: atomic, durable on return, and idempotent.

    The file is read once to validate and count, without a lock, and once to write. A file whose bytes were imported
    before is skipped, and its summary has no counts. Where a log has grown since, only its new lines are imported.

    Parameters
    ----------
    labels, fields, pair, fmt, text_field, label_field, requests, keep_wrapper : see `ReadOptions`
    teacher : the model that must have given the labels; a file that names another is refused
    any_teacher : import labels of several teachers, or of another one
    fingerprint : the teacher's fingerprint to put on the rows, where they are known to be its answers
    fair : whether the rows are a fair sample of traffic; if not, they train and never calibrate
    since : rows dated before this do not calibrate: traffic may have changed
    redact : applied to a text before it is stored
    skip_bad : skip the lines that are refused; otherwise one refusal refuses the file
    dry_run : count only, write nothing

    Raises
    ------
    ImportFileError
        The file cannot be read, has no traces, has lines that are refused, or answers of another teacher.
        Nothing was imported.
    StoreError
        The store cannot be written. Nothing was imported.
    """
    path = Path(path)
    reading = ReadOptions(fmt, tuple(labels), pair, text_field, label_field, requests, keep_wrapper, fields=fields)
    sha256 = _sha256(path)
    already = store.imports.contains(sha256)
    if already and not dry_run:
        return ImportSummary(path, already=True, sha256=sha256)
    reading = with_wrapper(path, reading)
    summary = _surveyed(path, reading, skip_bad=skip_bad)
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
    """Count the traces of a file.

    Raises
    ------
    ImportFileError
        If the file cannot be read, has no traces, or, unless `skip_bad`, has a line that is refused.
    """
    return _surveyed(path, with_wrapper(path, reading), skip_bad=skip_bad)


def _surveyed(path: Path, reading: ReadOptions, *, skip_bad: bool) -> ImportSummary:
    summary = survey(path, read_items(path, reading), reading.wrapper)
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
    for item in read_items(path, with_wrapper(path, reading or ReadOptions())):
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
        group=item.group,
        metadata={name: value for name, value in metadata.items() if value is not None},
    )


def _kept(trace: Trace, path: Path, redact: Redact | None, *, fair: bool) -> Trace:
    """Return the trace as it is stored: redacted, and with an audit rate of 0 if it must not calibrate."""
    text = trace.input if redact is None else redact(trace.input)
    if text is WITHHELD:
        raise ImportFileError(f"{path}: a redactor failed on a text; nothing was imported. The log says which error")
    return replace(trace, input=text, audit_rate=1.0 if fair else 0.0)


def _unchanged(summary: ImportSummary, traces: Iterator[Trace]) -> Iterator[Trace]:
    """Yield the traces; raise at the end, which rolls the import back, if the file has changed since it was counted."""
    yield from traces
    if _sha256(summary.path) != summary.sha256:
        raise ImportFileError(f"{summary.path}: changed while it was imported; nothing was imported. Try again")


def _check(summary: ImportSummary, *, skip_bad: bool) -> None:
    if summary.refused and not skip_bad:
        leave = ", or skip them: --skip-bad, of tracer-serve import and scan" if summary.rows else ""
        raise ImportFileError(
            f"{_refusals(summary)}\n{summary.refused:,} of {summary.rows + summary.refused:,} lines are refused, so"
            f" nothing was imported. Fix them{leave}"
        )
    if not summary.rows:
        why = f"; the first refusal: {summary.refusals[0]}" if summary.refusals else ""
        raise ImportFileError(f'{summary.path}: has no traces{why}. One per line: {{"input": ..., "teacher": ...}}')


def _refusals(summary: ImportSummary) -> str:
    """Return the first refusals, one line for each reason."""
    alike: dict[str, list[Refusal]] = {}
    for refusal in summary.refusals:
        alike.setdefault(refusal.reason, []).append(refusal)
    lines = [f"{summary.path}: {same[0]}{_more(len(same) - 1)}" for same in list(alike.values())[:_SHOWN]]
    rest = summary.refused - sum(len(same) for same in list(alike.values())[:_SHOWN])
    return "\n".join([*lines, f"... and {rest:,} more"] if rest else lines)


def _more(lines: int) -> str:
    return f" (and {lines:,} more lines)" if lines else ""


def _check_teachers(summary: ImportSummary, teacher: str | None) -> None:
    named = ", ".join(f"{name} ({rows} rows)" for name, rows in list(summary.teachers.items())[:_SHOWN])
    if len(summary.teachers) > 1:
        raise ImportFileError(
            f"{summary.path}: has the answers of {len(summary.teachers)} teachers: {named}. A surrogate imitates one."
            " Import one teacher's rows, or, if this is intended: tracer-serve import --any-teacher"
        )
    if teacher is not None and any(not _same(teacher, name) for name in summary.teachers):
        raise ImportFileError(
            f"{summary.path}: has the answers of {named}, the task's teacher is {teacher}."
            " If this is intended: tracer-serve import --any-teacher"
        )


def _same(teacher: str, name: str) -> bool:
    """Whether a log names the spec's model, perhaps with a provider before it and a snapshot date after it."""
    asked, answered = teacher.rsplit("/", 1)[-1], name.rsplit("/", 1)[-1]
    return answered == asked or answered.startswith(f"{asked}-20")


def _known_lines(path: Path, imported: frozenset[str]) -> int:
    """Return how many lines at the start of a text file were imported before: they hash to an imported file."""
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
    """Return the sha256 of a file's bytes and, for ``file.json#key``, of the key."""
    with opened(path, raw=True) as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update((split_key(path)[1] or "").encode())
    return digest.hexdigest()
