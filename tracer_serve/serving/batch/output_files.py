"""Write output files atomically: rows go to ``NAME.partial``, which is renamed to NAME after the last row.

``NAME.progress`` records the progress after each batch. Both are on disk before the next batch is written, so an
interrupted run continues after the last whole batch.
"""

import csv
import importlib
import io
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracer_serve.errors import ArtifactError, BadInputError

Row = dict[str, Any]
ADDED = ("tracer_line", "tracer_label", "tracer_decision", "tracer_score", "tracer_reason", "tracer_version")
"""Columns of the output after those of the input."""


def open_sink(out: Path, source: Path, key: dict[str, Any]) -> "Sink":
    """Return the sink for a file's extension, positioned after the rows of an earlier run.

    Parameters
    ----------
    source : the input; the output of another or changed input is not continued
    key : further values that must be equal for a continuation

    Raises
    ------
    BadInputError
        If the output exists already, belongs to another input, or its extension is unknown.
    """
    kinds: dict[str, type[Sink]] = {".jsonl": Jsonl, ".ndjson": Jsonl, ".csv": Csv, ".parquet": Parquet}
    kind = kinds.get(out.suffix.lower())
    if kind is None:
        raise BadInputError(f"{out}: the output's name must end in one of {', '.join(kinds)}")
    if out.exists():
        raise BadInputError(f"{out} exists and is complete; to classify again, remove it: rm {out}")
    seen = source.stat()
    return kind(out, source, {"input": str(source.resolve()), "size": seen.st_size, "mtime": seen.st_mtime_ns, **key})


class Sink(ABC):
    """Writes rows to a file.

    Attributes
    ----------
    rows : number of rows on disk
    mark : size of the complete part of the partial file: bytes, or parts
    fields : names of the columns, known from the first row on
    """

    def __init__(self, out: Path, source: Path, key: dict[str, Any]) -> None:
        self.out, self.source, self._key = out, source, key
        self.partial, self._progress = (out.with_name(out.name + ending) for ending in (".partial", ".progress"))
        self.rows, self.mark = 0, 0
        self.fields: list[str] = []
        if self._progress.exists() and self.partial.exists():  # only one of them: the run was interrupted at its end
            self._resume()

    def write(self, rows: Sequence[Row]) -> None:
        """Write a batch to disk; a later crash loses none of these rows."""
        if not rows:
            return
        if not self.fields:
            self.fields = [*_names(rows), *ADDED]
        self.mark = self._append(rows)
        self.rows += len(rows)
        progress = {"key": self._key, "rows": self.rows, "mark": self.mark, "fields": self.fields}
        aside = self._progress.with_name(self._progress.name + ".new")
        aside.write_text(json.dumps(progress), encoding="utf-8")
        aside.replace(self._progress)

    def finish(self) -> None:
        """Complete the output; after an interruption, the same run completes it."""
        self._complete()
        self._progress.unlink(missing_ok=True)
        if self.partial.exists():
            shutil.rmtree(self.partial)

    @abstractmethod
    def _append(self, rows: Sequence[Row]) -> int:
        """Write rows after the mark, durably, and return the new mark."""

    @abstractmethod
    def _complete(self) -> None:
        """Build the output from the partial one."""

    def _resume(self) -> None:
        try:
            progress = json.loads(self._progress.read_text(encoding="utf-8"))
            key = progress["key"]
            self.rows, self.mark, self.fields = progress["rows"], progress["mark"], progress["fields"]
        except (ValueError, KeyError) as error:
            raise ArtifactError(f"{self._progress} is damaged. To start again: rm -r {self._both()}") from error
        if key != self._key:
            raise BadInputError(
                f"{self.partial} belongs to another input or task, or its input has changed since."
                f" To start again: rm -r {self._both()}"
            )

    def _both(self) -> str:
        return f"{self.partial} {self._progress}"


class Jsonl(Sink):
    """One JSON object per line."""

    def _append(self, rows: Sequence[Row]) -> int:
        data = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        return _append(self.partial, self.mark, data)

    def _complete(self) -> None:
        self.partial.touch()
        self.partial.replace(self.out)


class Csv(Jsonl):
    """Comma-separated, with a header; the columns are those of the first batch."""

    def _append(self, rows: Sequence[Row]) -> int:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.fields)
        if not self.mark:
            writer.writeheader()
        try:
            writer.writerows(rows)
        except ValueError as error:
            raise BadInputError(f"{self.source}: a later record has further fields ({error}); write JSONL") from error
        return _append(self.partial, self.mark, text.getvalue())


class Parquet(Sink):
    """Parquet; until it is complete, a folder with one file per batch."""

    def _append(self, rows: Sequence[Row]) -> int:
        arrow, parquet = _pyarrow(self.out)
        self.partial.mkdir(exist_ok=True)
        encodable = [_encodable(row) for row in rows]
        try:
            table = arrow.Table.from_pylist(encodable, schema=self._schema(encodable))
            with self._part(self.mark).open("wb") as stream:
                parquet.write_table(table, stream)
                os.fsync(stream.fileno())
        except (arrow.ArrowException, OverflowError) as error:
            raise BadInputError(
                f"{self.source}: its records do not fit one schema ({error}); write JSONL instead"
            ) from error
        return self.mark + 1

    def _complete(self) -> None:
        _, parquet = _pyarrow(self.out)
        if not self.mark:
            raise BadInputError(f"{self.source} contains no records")
        whole = self.out.with_name(self.out.name + ".whole")
        with parquet.ParquetWriter(whole, parquet.read_schema(self._part(0))) as writer:
            for part in range(self.mark):
                writer.write_table(parquet.read_table(self._part(part)))
        whole.replace(self.out)

    def _part(self, number: int) -> Path:
        return self.partial / f"{number:06d}.parquet"

    def _schema(self, rows: Sequence[Row]) -> Any:
        """Return the schema of the first part, derived from the input's schema or its first records.

        pyarrow drops fields that a schema lacks, and truncates 1.5 to an integer. So a later part that does not fit the
        first schema is an error.
        """
        arrow, parquet = _pyarrow(self.out)
        first = parquet.read_schema(self._part(0)) if self.mark else None
        if self.source.suffix.lower() in (".parquet", ".pq"):
            given = first or parquet.read_schema(self.source)
        else:
            names = _names(rows)
            given = arrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]).schema
        if first is not None:
            both = arrow.unify_schemas([first, given], promote_options="permissive")
            if not both.equals(first):
                raise arrow.ArrowInvalid("a later record has other fields, or values of another type")
            return first
        text, real, whole = arrow.string(), arrow.float64(), arrow.int64()
        fields = [field.with_type(text) if field.type == arrow.null() else field for field in given]
        fields = [field for field in fields if field.name not in ADDED]
        ours = zip(ADDED, (whole, text, text, real, text, whole), strict=True)
        return arrow.schema([*fields, *(arrow.field(name, kind) for name, kind in ours)])


def _names(rows: Sequence[Row]) -> list[str]:
    """Return the input's fields in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row if name not in ADDED))


def _encodable(value: Any) -> Any:
    """Escape lone surrogates, which UTF-8 cannot encode."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_encodable(name): _encodable(inner) for name, inner in value.items()}
    return [_encodable(inner) for inner in value] if isinstance(value, list) else value


def _append(file: Path, at: int, data: str) -> int:
    with file.open("r+b" if file.exists() else "xb") as stream:
        stream.truncate(at)
        stream.seek(at)
        stream.write(data.encode("utf-8", "backslashreplace"))  # escapes lone surrogates
        stream.flush()
        os.fsync(stream.fileno())
        return stream.tell()


def _pyarrow(file: Path) -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise BadInputError(
            f"{file}: Parquet needs pyarrow: pip install '.[parquet]' in a checkout of tracer-serve"
        ) from error
