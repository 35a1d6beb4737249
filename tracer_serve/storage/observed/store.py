"""Store the calls observed by a proxy in one SQLite file: counts of every form, texts of possible tasks."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tracer_serve.errors import StoreError
from tracer_serve.forms.form import Form
from tracer_serve.forms.grouping import CallGroups
from tracer_serve.forms.prompt_group import Example, PromptGroup, Totals

_DAY_S = 86_400.0
_TABLES = """
CREATE TABLE IF NOT EXISTS totals (form TEXT PRIMARY KEY, facts TEXT NOT NULL, last REAL NOT NULL);
CREATE TABLE IF NOT EXISTS prompts (form TEXT PRIMARY KEY, facts TEXT NOT NULL, last REAL NOT NULL);
"""


class ObservedCalls:
    """A file of observed calls.

    Its one writer is the proxy, which writes changes every few seconds. Only its owner can read the file. Older calls
    than the proxy's `days` are deleted.

    Parameters
    ----------
    file : created, with its folder, at the first write

    Raises
    ------
    StoreError
        From every method, if the file cannot be read or written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def load_into(self, groups: CallGroups) -> None:
        """Add the stored calls to groups."""
        if not self.file.exists():
            raise StoreError(f"{self.file}: there is no such file; tracer-serve proxy writes it")
        with self._open() as database:
            for (facts,) in database.execute("SELECT facts FROM prompts"):
                groups.restore(_group_of(facts))
            for form, facts in database.execute("SELECT form, facts FROM totals"):
                groups.restore_totals(form, Totals(**json.loads(facts)))

    def save(self, groups: CallGroups, days: float) -> None:
        """Write changes, and delete calls older than `days`."""
        oldest = time.time() - days * _DAY_S
        groups.forget(oldest)
        totals = [(form, _json(asdict(counts)), counts.last) for form, counts in groups.forms()]
        prompts = [(group.form.fingerprint, _facts_of(group), group.totals.last) for group in groups.groups()]
        with self._open() as database, database:
            database.execute("DELETE FROM prompts")  # widening a slot changes the form
            database.executemany("INSERT INTO prompts VALUES (?, ?, ?)", prompts)
            database.executemany("INSERT OR REPLACE INTO totals VALUES (?, ?, ?)", totals)
            database.execute("DELETE FROM totals WHERE last < ?", (oldest,))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.file.touch(0o600)
            database = sqlite3.connect(self.file, timeout=10.0)
            try:
                database.executescript(_TABLES)
                yield database
            finally:
                database.close()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self.file}: cannot be read or written: {error}. Check: ls -l {self.file.parent}"
            ) from error


def _json(value: object) -> str:
    return json.dumps(value)  # in ASCII: UTF-8 cannot encode a lone surrogate


def _facts_of(group: PromptGroup) -> str:
    return _json(
        {
            "form": group.form.as_json(),
            "totals": asdict(group.totals),
            "labels": group.labels,
            "examples": [(one.text, one.label, one.at) for one in group.examples],
            "drawn": group.drawn,
            "largest": group.largest,
        }
    )


def _group_of(facts: str) -> PromptGroup:
    read = json.loads(facts)
    return PromptGroup(
        form=Form.of_json(read["form"]),
        totals=Totals(**read["totals"]),
        labels=Counter(read["labels"]),
        examples=[Example(text, label, at) for text, label, at in read["examples"]],
        drawn=read["drawn"],
        largest=read["largest"],
    )
