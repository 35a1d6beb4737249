"""Read many traces as columns: a million traces as a few arrays instead of a million objects."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select

from tracer_serve.storage.traces.codec import unpack, unpack_some
from tracer_serve.storage.traces.recency import Newest
from tracer_serve.storage.traces.schema import traces
from tracer_serve.storage.traces.sql import between
from tracer_serve.types import Bools, Labels, Text

_CODED = (
    "teacher_label", "decision", "label_source", "teacher_fingerprint", "form", "group_id", "key_id", "audit_kind",
)  # fmt: skip
_NUMBERS = ("audit_rate", "u")
_READ = ("id", "input", *_NUMBERS, *_CODED)
_NAMED = 500  # ids in one statement


@dataclass(frozen=True, slots=True)
class Coded:
    """A column with few distinct values.

    Parameters
    ----------
    codes : index into `values`, -1 for missing, int32, shape (n,)
    values : the distinct values, in order of first appearance
    """

    codes: NDArray[np.int32]
    values: tuple[str, ...]

    def decode(self, missing: str = "") -> Labels:
        """Return the column as strings, shape (n,); numpy drops trailing NULs, `values` keeps them."""
        return np.array([*self.values, missing], dtype=np.str_)[self.codes]

    def is_value(self, value: str) -> Bools:
        """Return which rows have this value, shape (n,)."""
        return np.asarray(self.codes == (self.values.index(value) if value in self.values else -2))


@dataclass(frozen=True, slots=True)
class Columns:
    """n traces in the order of their ids, after the rows of `Newest.older`.

    Parameters
    ----------
    ids : ASCII, shape (n,); ``ids[i].decode()`` is the trace's id
    texts : n texts or pairs
    audit_rate, u : as in `Trace`, float64, shape (n,)
    label, decision, source, fingerprint, form, group, key, audit_kind : coded columns
    """

    ids: NDArray[np.bytes_]
    texts: list[Text]
    audit_rate: NDArray[np.float64]
    u: NDArray[np.float64]
    label: Coded
    decision: Coded
    source: Coded
    fingerprint: Coded
    form: Coded
    group: Coded
    key: Coded
    audit_kind: Coded

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def labelled(self) -> Bools:
        """Rows with a teacher label, shape (n,)."""
        return np.asarray(self.label.codes >= 0)


class _Coder:
    """Number the distinct values of a column."""

    def __init__(self) -> None:
        self.codes: list[NDArray[np.int32]] = []
        self.known: dict[str | None, int] = {None: -1}

    def add(self, values: tuple[str | None, ...]) -> None:
        known = self.known
        for value in dict.fromkeys(values):
            known.setdefault(value, len(known) - 1)
        self.codes.append(np.fromiter(map(known.__getitem__, values), np.int32, len(values)))

    def coded(self) -> Coded:
        values = tuple(unpack_some(value) or "" for value in list(self.known)[1:])
        return Coded(_joined(self.codes, np.int32), values)


def gather(
    connection: Connection,
    task: str,
    *,
    after_id: str | None,
    until_id: str | None,
    labelled_only: bool,
    newest: Newest | None,
    page_rows: int,
) -> Columns:
    """Read rows page by page into columns."""
    texts: list[Text] = []
    coders = {name: _Coder() for name in _CODED}
    ids: list[NDArray[np.bytes_]] = []
    numbers: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _NUMBERS}
    query = between(task, None, until_id).with_only_columns(*(traces.c[name] for name in _READ))
    if labelled_only:
        query = query.where(traces.c.teacher_label.is_not(None))
    for page in _pages(connection, query, after_id, newest, page_rows):
        columns = dict(zip(_READ, zip(*page, strict=True), strict=True))
        texts.extend(map(unpack, columns["input"]))
        ids.append(np.array(columns["id"], dtype=np.bytes_))
        for name, parts in numbers.items():
            parts.append(np.array(columns[name], dtype=np.float64))
        for name, coder in coders.items():
            coder.add(columns[name])
    return Columns(
        ids=_joined(ids, np.bytes_),
        texts=texts,
        audit_rate=_joined(numbers["audit_rate"], np.float64),
        u=_joined(numbers["u"], np.float64),
        label=coders["teacher_label"].coded(),
        decision=coders["decision"].coded(),
        source=coders["label_source"].coded(),
        fingerprint=coders["teacher_fingerprint"].coded(),
        form=coders["form"].coded(),
        group=coders["group_id"].coded(),
        key=coders["key_id"].coded(),
        audit_kind=coders["audit_kind"].coded(),
    )


def _pages(
    connection: Connection, query: Select[Any], after_id: str | None, newest: Newest | None, page_rows: int
) -> Iterator[Sequence[Row[Any]]]:
    if newest is not None:
        for start in range(0, len(newest.older), _NAMED):
            yield connection.execute(query.where(traces.c.id.in_(newest.older[start : start + _NAMED]))).all()
        query = query.where(newest.chosen)
    while True:
        page = connection.execute(
            (query if after_id is None else query.where(traces.c.id > after_id)).limit(page_rows)
        ).all()
        if page:
            yield page
        if len(page) < page_rows:
            return
        after_id = page[-1][0]


def _joined(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
