"""Read files as numbered records, one at a time: JSONL, JSON, CSV, TSV (also gzipped), and Parquet."""

import csv
import gzip
import importlib
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, cast

from tracer_serve.errors import ImportFileError
from tracer_serve.storage.importers.items import CONTAINERS, Format, Record, Refusal

_LONGEST_FIELD = 1 << 28  # Python's own limit for a CSV field, 128 KiB, is less than a long message
_SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_LIST_KEYS = ("data", "traces", "observations", "items", "rows")
Numbered = Iterator[tuple[int, Record | Refusal]]


def records(path: Path, fmt: Format = "auto") -> Numbered:
    """Yield each record of a file with its line number, or the reason why the line is not a record.

    Raises
    ------
    ImportFileError
        The file as a whole cannot be read.
    """
    _refuse_foreign(path)
    container = fmt if fmt in CONTAINERS else _container(path)
    if container == "parquet":
        yield from _parquet(path)
        return
    with opened(path) as lines:
        if container in ("csv", "tsv"):
            yield from _csv(path, lines, "\t" if container == "tsv" else None)
        elif container == "json":
            yield from _json(path, lines)
        else:
            yield from _jsonl(lines)


def split_key(path: Path) -> tuple[Path, str | None]:
    """Split ``file.json#key``, which names one list of a JSON object of lists, into file and key.

    Examples
    --------
    >>> split_key(Path("clinc150_full.json#train"))[1], split_key(Path("traces.jsonl"))[1]
    ('train', None)
    """
    name, mark, key = path.name.rpartition(".json#")
    return (path.with_name(f"{name}.json"), key) if mark and key else (path, None)


def _refuse_foreign(path: Path) -> None:
    """Refuse UTF-16 files and archives by their first bytes, before each of their lines is refused."""
    with opened(path) as lines:
        start = lines.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        utf8 = path.with_stem(f"{path.stem}.utf8")
        raise ImportFileError(f"{path}: is UTF-16. Convert it: iconv -f utf-16 -t utf-8 {path} > {utf8}")
    if start == b"PK\x03\x04":
        raise ImportFileError(f"{path}: is a zip archive or an Excel workbook. Unpack it, or save its sheet as CSV")


def _container(path: Path) -> str:
    path, key = split_key(path)
    if key is not None:
        return "json"
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    found = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    if found is not None and found != "json":
        return found
    with opened(path) as lines:
        bare = (line.strip(b"\xef\xbb\xbf \t\r\n") for line in lines)
        start = next(filter(None, bare), b"")
        alone = not any(bare)
    if start[:1] == b"[" and found is not None:
        return "json"
    if start[:1] in (b"{", b"["):  # an object a line, or one document, on one line or over many
        return "jsonl" if start.endswith((b"}", b"]")) and not (alone and found) else "json"
    if start.startswith(b"PAR1"):
        return "parquet"
    return "jsonl" if found else "csv"


@contextmanager
def opened(path: Path, *, raw: bool = False) -> Iterator[BufferedIOBase]:
    """Open a file for reading bytes, decompressed unless `raw`; errors, also later ones, become `ImportFileError`."""
    path, _ = split_key(path)
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" and not raw else path.open("rb") as stream:
            yield stream
    except FileNotFoundError as error:
        raise ImportFileError(
            f"{path}: there is no such file. Check: ls {path.parent} (paths in the YAML are relative to the YAML)"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise ImportFileError(f"{path}: cannot be read: {error}") from error


def _jsonl(lines: BufferedIOBase) -> Numbered:
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if content:
            yield number, _parsed(content)


def _parsed(content: bytes) -> Record | Refusal:
    try:
        value = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Refusal(0, _not_utf8(content, error.start))
    except ValueError as error:
        return Refusal(0, f"malformed JSON: {error}")
    except RecursionError:
        return Refusal(0, "malformed JSON: nested too deeply")
    return as_record(value)


def as_record(value: Any) -> Record | Refusal:
    """Return a JSON value as a record: an object, or a list of text and label."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):  # noqa: PLR2004
        return {"input": value[0], "teacher": value[1]}
    return Refusal(0, f"is a JSON {type(value).__name__}, not an object such as {{'input': ..., 'teacher': ...}}")


def _not_utf8(content: bytes, at: int) -> str:
    return f"is not UTF-8 (byte 0x{content[at]:02x} at position {at + 1}); convert the file: iconv -f latin1 -t utf-8"


def _json(path: Path, lines: BufferedIOBase) -> Numbered:
    value = _parsed(lines.read().removeprefix(b"\xef\xbb\xbf").strip().join((b'{"it":', b"}")))
    if isinstance(value, Refusal):
        lines_of = f"jq -c . {path} > {path.with_suffix('.jsonl')}"
        raise ImportFileError(
            f"{path}: {value.reason}. For a file of several documents, write one per line: {lines_of}"
        )
    found, key = value["it"], split_key(path)[1]
    if key is not None:
        if not isinstance(found, dict) or key not in found:
            known = ", ".join(found) if isinstance(found, dict) else "none"
            raise ImportFileError(f"{path}: has no list {key!r}; it has: {known}")
        found = found[key]
    elif isinstance(found, dict):
        found = next((found[key] for key in _LIST_KEYS if isinstance(found.get(key), list)), [found])
    if not isinstance(found, list):
        raise ImportFileError(f"{path}: is a JSON {type(found).__name__}, not a list of objects")
    yield from ((number, as_record(element)) for number, element in enumerate(found, start=1))


def _csv(path: Path, lines: BufferedIOBase, delimiter: str | None) -> Numbered:
    csv.field_size_limit(_LONGEST_FIELD)
    # invalid UTF-8 is read as surrogates, so that the error can name its row
    wrapped = cast("IO[bytes]", lines)
    with io.TextIOWrapper(wrapped, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield from _csv_rows(path, text, delimiter)


def _csv_rows(path: Path, text: io.TextIOWrapper, delimiter: str | None) -> Numbered:
    header_line = text.readline()
    if not header_line.strip():
        raise ImportFileError(f"{path}: is empty; a CSV file starts with a line of column names, such as text,label")
    delimiter = delimiter or max((",", ";", "\t", "|"), key=header_line.count)
    header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter))]
    rows, before = csv.reader(text, delimiter=delimiter, strict=True), 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:  # the reader continues after the malformed line
            yield before + 2, Refusal(0, f"malformed CSV: {error} (an unclosed quote?)")
            row = []
        if row:
            yield before + 2, _csv_record(header, row)
        before = rows.line_num


def _csv_record(header: list[str], row: list[str]) -> Record | Refusal:
    if len(row) != len(header):
        return Refusal(0, f"has {len(row)} fields, the header has {len(header)}; a text with commas must be quoted")
    for value in row:
        if any("\udc80" <= character <= "\udcff" for character in value):
            raw = value.encode("utf-8", "surrogateescape")
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                return Refusal(0, _not_utf8(raw, error.start))
    return dict(zip(header, row, strict=True))


def _parquet(path: Path) -> Numbered:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        arrow = importlib.import_module("pyarrow")
    except ImportError as error:
        raise ImportFileError(
            f"{path}: Parquet needs pyarrow: pip install '.[parquet]' in a checkout of tracer-serve"
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (OSError, arrow.ArrowException, ValueError, OverflowError) as error:  # the last two: out of Python's range
        raise ImportFileError(f"{path}: cannot be read as Parquet, row {number + 1}: {error}") from error
