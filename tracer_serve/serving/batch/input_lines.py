"""Read the records of a file, and the text to classify in each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tracer_serve.storage.importers.extract import require_pair, text_of
from tracer_serve.storage.importers.items import Record, Refusal, RefusedError
from tracer_serve.storage.importers.parse import plain_text
from tracer_serve.storage.importers.readers import records
from tracer_serve.types import Text


@dataclass(frozen=True, slots=True)
class InputLine:
    """One record of the input.

    Parameters
    ----------
    number : line of a text file, row of a Parquet file, from 1
    record : its fields; empty if the line cannot be read
    text : the text to classify; None if there is none
    problem : why there is none
    """

    number: int
    record: Record
    text: Text | None
    problem: str = ""

    @property
    def user(self) -> str | None:
        """The record's field ``user``, as in a request to ``/v1/classify``; `mode: canary` selects users by it."""
        user = self.record.get("user")
        return user if isinstance(user, str) else None


def lines_of(path: Path, *, pair: bool, text_field: str | tuple[str, str] | None = None) -> Iterator[InputLine]:
    """Yield one line per record of a file, also for those that cannot be read.

    Raises
    ------
    ImportFileError
        If the file as a whole cannot be read.
    """
    for number, record in records(path):
        if isinstance(record, Refusal):
            yield InputLine(number, {}, None, record.reason)
            continue
        try:
            text = text_of(plain_text(record, text_field))
            require_pair(text, pair)
        except RefusedError as error:
            yield InputLine(number, record, None, str(error))
            continue
        yield InputLine(number, record, text)
