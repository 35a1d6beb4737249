"""Parse a file into validated labelled texts, one at a time."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from tracer_serve.config.fields import AnswerFields
from tracer_serve.errors import ImportFileError
from tracer_serve.storage.importers.extract import (
    LABEL_NAMES,
    answer_of,
    at_path,
    first,
    group_of,
    label_of,
    require_pair,
    text_of,
)
from tracer_serve.storage.importers.formats import RECORD_FORMATS, Reader, moment
from tracer_serve.storage.importers.items import (
    LabelledText,
    RawTrace,
    ReadOptions,
    Record,
    Refusal,
    RefusedError,
    SkippedError,
)
from tracer_serve.storage.importers.readers import records

TEXT_NAMES = ("input", "text", "query", "prompt", "message", "sentence", "question", "utterance", "messages")
PAIR_NAMES = (
    ("text_a", "text_b"), ("premise", "hypothesis"), ("sentence_a", "sentence_b"), ("sentence1", "sentence2"),
)  # fmt: skip
T = TypeVar("T")
_MOST_TOKENS = 1_000_000_000  # of one call; more are a mistake, and would spoil every sum
_TOKENS = {
    "prompt_tokens": ("prompt_tokens", "input_tokens", "input"),
    "completion_tokens": ("completion_tokens", "output_tokens", "output"),
}


def read_items(path: Path, reading: ReadOptions) -> Iterator[LabelledText | Refusal | None]:
    """Yield each labelled text of a file, each refused line, and None for each record of another kind.

    Raises
    ------
    ImportFileError
        The file as a whole cannot be read.
    """
    yield from _each(path, reading, lambda line, found: _item(line, found, reading))


def read_raw(path: Path, reading: ReadOptions) -> Iterator[RawTrace | Refusal | None]:
    """Yield each record's prompt and answer before a text and a label are taken from them; otherwise as `read_items`.

    Raises
    ------
    ImportFileError
        The file as a whole cannot be read.
    """
    yield from _each(path, reading, lambda _, found: found)


def _each(path: Path, reading: ReadOptions, make: Callable[[int, RawTrace], T]) -> Iterator[T | Refusal | None]:
    join = _joined(reading.requests) if reading.requests is not None else None
    for line, record in records(path, reading.fmt):
        if isinstance(record, Refusal):
            yield Refusal(line, record.reason)
            continue
        try:
            yield from [make(line, found) for found in _raw(join(record) if join else record, reading)]
        except RefusedError as error:
            yield Refusal(line, str(error))
        except SkippedError:
            yield None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            yield Refusal(line, f"does not have the structure of its format ({type(error).__name__}: {error})")


def _raw(record: Record, reading: ReadOptions) -> Iterator[RawTrace]:
    wanted, read = reading.label_field, _reader(record, reading)
    group = group_of(record)
    for found in _plain(record, reading) if read is None else read(record):
        label = found.label if read is None or wanted is None else at_path(answer_of(found.label), wanted)
        yield replace(found, label=label, group=group if found.group is None else found.group)


def _reader(record: Record, reading: ReadOptions) -> Reader | None:
    """Return what reads the record's format; None for a plain record, whose fields are the text and the label."""
    if reading.fmt in RECORD_FORMATS:
        return RECORD_FORMATS[reading.fmt][1]
    if reading.fmt == "plain" or reading.text_field or (reading.label_field or "") in record:
        return None
    return next((read for recognises, read in RECORD_FORMATS.values() if recognises(record)), None)


def _plain(record: Record, reading: ReadOptions) -> Iterator[RawTrace]:
    lower = _lower(record)
    try:
        text = plain_text(record, reading.text_field)
    except RefusedError as error:  # name both missing fields in one message
        unnamed = reading.label_field is None and not any(name in lower for name in LABEL_NAMES)
        raise RefusedError(f"{error}{', and the label: --label-field NAME' if unnamed else ''}") from None
    yield RawTrace(
        text=text,
        label=_label(record, lower, reading),
        teacher=first(lower, "model", "teacher_model"),
        when=first(lower, "ts", "timestamp", "created_at"),
        usage=lower["usage"] if isinstance(lower.get("usage"), dict) else {},
        cost=lower.get("cost"),
        user=first(lower, "user", "user_id"),
    )


def _label(record: Record, lower: Record, reading: ReadOptions) -> Any:
    """Return the label's value: a field of the record, or a field inside the answer that the record holds.

    Of a task with fields it may be the record itself, as in a table with a column per field.
    """
    wanted = reading.label_field
    if wanted is None and reading.fields is not None and (columns := reading.fields.columns(record)):
        return columns
    if wanted is None or wanted in record:
        return _named(record, lower, LABEL_NAMES, wanted, "label")
    answers = [name for name in LABEL_NAMES if name in lower]
    if answers and wanted.partition(".")[0] not in record:
        return at_path(answer_of(first(lower, *answers)), wanted)
    return _named(record, lower, LABEL_NAMES, wanted, "label")


def plain_text(record: Record, wanted: str | tuple[str, str] | None = None) -> Any:
    """Return the text's field, or both fields of a pair, by their usual names or those that are `wanted`.

    Raises
    ------
    RefusedError
        There is no such field.
    """
    lower = _lower(record)
    if isinstance(wanted, tuple):
        return [_named(record, lower, (), name, "text") for name in wanted]
    for pair in PAIR_NAMES if wanted is None else ():
        if all(name in lower for name in pair):
            return [lower[name] for name in pair]
    return _named(record, lower, TEXT_NAMES, wanted, "text")


def _lower(record: Record) -> Record:
    return {name.casefold().strip(): value for name, value in record.items() if isinstance(name, str)}


def _named(record: Record, lower: Record, names: tuple[str, ...], wanted: str | None, what: str) -> Any:
    if wanted is not None and wanted in record:
        return record[wanted]
    if wanted is not None and "." in wanted:
        return at_path(record, wanted)
    found = [name for name in names if name in lower] if wanted is None else []
    if found:
        return first(lower, *found)
    has = ", ".join(repr(name) for name in list(record)[:12])
    looked = repr(wanted) if wanted else ", ".join(names)
    raise RefusedError(f"has no {what}: no field {looked}; it has {has or 'none'}. Name it: --{what}-field NAME")


def _item(line: int, found: RawTrace, reading: ReadOptions) -> LabelledText:
    text = text_of(found.text)
    inside = reading.wrapper.read(text) if reading.wrapper is not None and isinstance(text, str) else None
    if inside is not None:
        text = text_of(inside)
    if reading.pair is not None:
        require_pair(text, reading.pair)
    label = reading.closed(label_of(found.label)) if reading.fields is None else _whole(found.label, reading.fields)
    return LabelledText(
        line=line,
        text=text,
        label=label,
        teacher=found.teacher if isinstance(found.teacher, str) and found.teacher else None,
        ts=moment(found.when),
        usage=tokens_of(found.usage),
        cost=cost_of(found.cost),
        user=_name(found.user),
        group=_name(found.group) or _name(found.user),
        unwrapped=inside is not None,
    )


def _whole(value: Any, fields: AnswerFields) -> str:
    """Return the label of an answer with several fields."""
    try:
        return fields.encode(answer_of(value))
    except ValueError as error:
        raise RefusedError(str(error)) from None


def _name(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


def tokens_of(usage: Mapping[str, Any]) -> dict[str, int]:
    """Return ``prompt_tokens`` and ``completion_tokens`` of a log, whatever it calls them."""
    found = {name: first(usage, *keys) for name, keys in _TOKENS.items()}
    return {name: count for name, count in found.items() if isinstance(count, int) and 0 <= count <= _MOST_TOKENS}


def cost_of(value: Any) -> float:
    """Return a cost; 0 if it is not a finite amount."""
    try:
        amount = float(value or 0.0)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return amount if 0.0 <= amount < math.inf else 0.0


def _joined(requests: Path) -> Callable[[Record], Record]:
    """Return a function that gives a line of a batch's output its request."""
    by_id: dict[str, Record] = {}
    for line, record in records(requests, "jsonl"):
        if isinstance(record, Refusal) or "custom_id" not in record:
            reason = record.reason if isinstance(record, Refusal) else "has no 'custom_id'"
            raise ImportFileError(f"{requests}: line {line}: {reason}")
        by_id[str(record["custom_id"])] = record
    return lambda record: {**record, "request": by_id.get(str(record.get("custom_id")), {})}
