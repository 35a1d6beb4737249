"""Offline teacher: answers from a labelled file instead of an LLM, for demonstrations and tests.

A text in the file gets the file's label. Any other text gets the label of the most similar text in the file (cosine of
word and character n-grams). That is a nearest-neighbour guess: agreement and savings measured against it show how
tracer-serve works, and say nothing about any LLM.
"""

import asyncio
import hashlib
import json
import math
import time
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from tracer_serve.components.hashed_ngrams import Grams, count_ngrams, learn_vocabulary, weigh
from tracer_serve.components.registry import teachers
from tracer_serve.components.teachers._params import Price
from tracer_serve.config.fields import AnswerFields
from tracer_serve.errors import PluginError, TeacherError
from tracer_serve.storage.importers import ReadOptions, read_traces
from tracer_serve.types import Answer, Text, Vectors, length_of

_CHARS_PER_TOKEN = 4  # the usual rule of thumb for English


@teachers.register("offline")
class Offline:
    """Answer with the label of a text in a file, else with the label of the most similar text.

    Parameters
    ----------
    file : one or several files in any format that ``tracer-serve import`` reads; of repeated texts the last row counts
    latency_ms : simulated latency of an answer
    price : price of tokens, which are estimated at four characters each
    labels, fields : the task's closed label set, or the fields of its answers; rows with another label are errors

    Raises
    ------
    ImportFileError
        If a file cannot be read; names the line.
    PluginError
        If the files contain no labelled text.
    """

    def __init__(
        self,
        file: Path | tuple[Path, ...],
        *,
        latency_ms: Annotated[float, Field(ge=0)] = 0.0,
        price: Price | None = None,
        labels: tuple[str, ...] = (),
        fields: AnswerFields | None = None,
    ) -> None:
        self.latency_ms, self.price = latency_ms, price
        files = (file,) if isinstance(file, Path) else tuple(file)
        self._known, self.fingerprint = _read(tuple(map(_state, files)), tuple(labels), fields)
        if not self._known:
            raise PluginError(f"{', '.join(map(str, files))}: no labelled text in it")
        self._labels = list(self._known.values())
        self._prompt_chars = sum(len(label) + 2 for label in set(labels or self._labels))

    async def label(self, text: Text) -> Answer:
        """Return the known or nearest label.

        Raises
        ------
        TeacherError
            ``unknown_label`` if no known text shares an n-gram with this one.
        """
        start = time.monotonic()
        known = self._known.get(text)
        label = known if known is not None else await asyncio.to_thread(self._nearest, text)
        await asyncio.sleep(self.latency_ms / 1e3)
        prompt = math.ceil((self._prompt_chars + length_of(text)) / _CHARS_PER_TOKEN)
        usage = {"prompt_tokens": prompt, "completion_tokens": math.ceil(len(label) / _CHARS_PER_TOKEN)}
        cost = self.price.of(usage) if self.price else 0.0
        return Answer(label, usage, cost, (time.monotonic() - start) * 1e3)

    async def close(self) -> None:
        """Do nothing: no connection is open."""

    @cached_property
    def _index(self) -> tuple[Grams, Vectors, Any]:
        """Vocabulary, idf and sparse vectors of the known texts; built when the first unknown text arrives."""
        from scipy.sparse import csr_matrix  # noqa: PLC0415  # slow to import, and only unknown texts need it

        known = list(self._known)
        counts = count_ngrams(known)
        grams, idf = learn_vocabulary(counts, len(known), 1, len(counts.gram))
        return grams, idf, csr_matrix(weigh(counts, len(known), grams, idf), shape=(len(known), len(grams)))

    def _nearest(self, text: Text) -> str:
        grams, idf, vectors = self._index
        value, column, _ = weigh(count_ngrams([text]), 1, grams, idf)
        similarity = vectors[:, column] @ value
        best = int(similarity.argmax())
        if similarity[best] <= 0:
            raise TeacherError("no known text has anything in common with this one", reason="unknown_label")
        return self._labels[best]


class _FileState(NamedTuple):
    """A file with what changes when it is written."""

    path: Path
    modified_ns: int
    size: int


def _state(file: Path) -> _FileState:
    try:
        found = file.stat()
    except OSError:  # reading it names the error
        return _FileState(file, 0, 0)
    return _FileState(file, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4)  # one command builds its task's teacher several times
def _read(
    files: tuple[_FileState, ...], labels: tuple[str, ...], fields: AnswerFields | None
) -> tuple[dict[Text, str], str]:
    """Return the label of each text, and a hash of them."""
    reading = ReadOptions(labels=labels, fields=fields)
    traces = (trace for file in files for trace in read_traces(file.path, "offline", reading))
    known = {trace.input: str(trace.teacher_label) for trace in traces}
    # hash the rows, not the files' bytes: the same rows in another order are the same teacher
    rows = sorted(json.dumps(row) for row in known.items())
    return known, hashlib.sha256("\n".join(["offline", *rows]).encode("ascii")).hexdigest()[:16]
