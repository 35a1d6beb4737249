"""A stand-in for a teacher, without an LLM: for trying tracer-serve out, for demonstrations and for tests.

It knows the texts of a labelled file. A text it knows gets the file's label; any other text gets the label of the known
text that looks most like it (character n-grams). That is a nearest-neighbour guess, not a judgement: agreement and
savings measured against it say how tracer-serve works, nothing about any LLM.
"""

import asyncio
import csv
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeGuard

import numpy as np
from pydantic import Field
from sklearn.feature_extraction.text import TfidfVectorizer

from tracer_serve.errors import PluginError, TeacherError
from tracer_serve.records import Answer, Text
from tracer_serve.registry import teachers
from tracer_serve.teachers._params import Price

_INPUT = ("input", "text", "query", "prompt")
_LABEL = ("teacher", "teacher_label", "label", "category", "intent", "answer", "output")
_CHARS_PER_TOKEN = 4  # the usual rule of thumb for English


@teachers.register("offline")
class Offline:
    """Answers from a labelled file: the known label, else that of the nearest known text.

    Parameters
    ----------
    file : one file or several, JSONL or CSV with a header; a text in ``input``, ``text``, ``query`` or ``prompt`` (a
        list of two for a pair), its label in ``teacher``, ``teacher_label``, ``label``, ``category``, ``intent``,
        ``answer`` or ``output``. Where a text is there twice, the later row counts
    latency_ms : how long an answer takes, as an LLM's would
    price : what the tokens would cost; tokens are estimated at four characters each
    labels : the task's closed label set; rows of the file with another label are refused

    Raises
    ------
    PluginError
        Where the file cannot be read, with its line.
    """

    def __init__(
        self,
        file: Path | tuple[Path, ...],
        *,
        latency_ms: Annotated[float, Field(ge=0)] = 0.0,
        price: Price | None = None,
        labels: tuple[str, ...] = (),
    ) -> None:
        self.latency_ms, self.price = latency_ms, price
        files = (file,) if isinstance(file, Path) else file
        self._known = {text: label for path in files for text, label in _rows(path, frozenset(labels))}
        if not self._known:
            raise PluginError(f"{', '.join(map(str, files))}: holds no labelled text")
        self._labels = list(self._known.values())
        self._prompt_chars = sum(len(label) + 2 for label in set(labels or self._labels))
        # of what it knows, not of the files' bytes: another order or spelling of the same rows is the same teacher
        rows = sorted(json.dumps(row) for row in self._known.items())
        self.fingerprint = hashlib.sha256("\n".join(["offline", *rows]).encode("ascii")).hexdigest()[:16]

    async def label(self, text: Text) -> Answer:
        """Return the known or nearest label.

        Raises
        ------
        TeacherError
            ``unknown_label`` where no known text has anything in common with this one.
        """
        start = time.monotonic()
        known = self._known.get(text)
        label = known if known is not None else await asyncio.to_thread(self._nearest, text)
        await asyncio.sleep(self.latency_ms / 1e3)
        prompt = math.ceil((self._prompt_chars + len(_joined(text))) / _CHARS_PER_TOKEN)
        usage = {"prompt_tokens": prompt, "completion_tokens": math.ceil(len(label) / _CHARS_PER_TOKEN)}
        cost = self.price.of(usage) if self.price else 0.0
        return Answer(label, usage, cost, (time.monotonic() - start) * 1e3)

    async def close(self) -> None:
        """Nothing is open."""

    @cached_property
    def _index(self) -> tuple[Any, Any]:
        """Vectoriser and known vectors: made when a text is first unknown, a second or two for 10,000 texts."""
        ngrams = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, dtype=np.float32)
        return ngrams, ngrams.fit_transform(map(_joined, self._known))

    def _nearest(self, text: Text) -> str:
        ngrams, vectors = self._index
        similarity = (vectors @ ngrams.transform([_joined(text)]).T).toarray().ravel()
        best = int(similarity.argmax())
        if similarity[best] <= 0:
            raise TeacherError("no known text has anything in common with this one", reason="unknown_label")
        return self._labels[best]


def _joined(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(text)


def _rows(file: Path, allowed: frozenset[str]) -> Iterator[tuple[Text, str]]:
    """Yield text and label of each row."""
    for line, row in _read(file):
        text, label = (next((row[name] for name in names if row.get(name)), None) for names in (_INPUT, _LABEL))
        known = tuple(text) if isinstance(text, list) else text
        if not (_is_text(known) and isinstance(label, str)):
            raise PluginError(f"{file}:{line}: needs a text in one of {_INPUT} and its label in one of {_LABEL}")
        if allowed and label not in allowed:
            raise PluginError(f"{file}:{line}: label {label!r} is not among the task's labels")
        yield known, label


def _is_text(value: object) -> TypeGuard[Text]:
    match value:
        case str() | (str(), str()):
            return True
    return False


def _read(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield line number and row."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() in (".csv", ".tsv"):
                reader = csv.DictReader(lines, dialect="excel-tab" if file.suffix.lower() == ".tsv" else "excel")
                yield from ((reader.line_num, row) for row in reader)
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = json.loads(line)
                    yield number, row if isinstance(row, dict) else {}
    except OSError as error:
        raise PluginError(f"{file} cannot be read: {error.strerror}; paths are relative to the YAML") from None
    except UnicodeDecodeError as error:
        raise PluginError(f"{file} is not UTF-8: byte {error.start} cannot be read") from None
    except json.JSONDecodeError as error:
        raise PluginError(f"{file}:{number}: is not JSON: {error.msg}") from None
