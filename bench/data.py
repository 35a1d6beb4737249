"""Public datasets of the benchmarks, embedded once, with their teachers' labels.

The folder that holds them is named by ``TRACER_BENCH_DATA``; nothing of it is copied but the vectors, which are kept
under ``.bench/vectors``.
"""

import csv
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from tracer_serve.components.embedders._cache import CachedEmbedder
from tracer_serve.components.embedders._pairs import PairEmbedder
from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.components.registry import embedders
from tracer_serve.protocols import Embedder
from tracer_serve.types import Ints, Labels, Text, Vectors

DATASETS = ("banking77", "banking77_llm", "clinc150", "moderation", "sick", "sick_joined", "stackoverflow_llm")
TEACHERS = {"banking77_llm": "qwen3_30b_fewshot", "stackoverflow_llm": "llama32_3b"}
"""Datasets with recorded answers of LLMs: the column that plays the teacher unless another one is named."""
GOLD = "gold"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
_VECTORS = Path(__file__).resolve().parent.parent / ".bench" / "vectors"
_NEAR = 10


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a dataset: n texts, the teacher's labels, float32 vectors (n, d)."""

    texts: Sequence[Text]
    labels: Labels
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Ints) -> "Part":
        """Return the rows given by index."""
        return Part([self.texts[i] for i in rows], self.labels[rows], self.vectors[rows])


@dataclass(frozen=True, slots=True)
class Dataset:
    """A task in its official split.

    Parameters
    ----------
    train : the traces
    test : never seen by a fit
    foreign : out-of-scope inputs; empty if the dataset has none
    teacher : whose labels these are: ``gold``, or the LLM whose answers were recorded
    """

    name: str
    train: Part
    test: Part
    foreign: Part
    teacher: str = GOLD


class Given:
    """Embedder that looks up known vectors: both systems get the same ones, and a fit loads no encoder.

    Parameters
    ----------
    parts : rows whose texts it knows
    uncached : the embedder that made the vectors, for a fit that asks what embedding costs
    """

    trainable = False
    fingerprint = "given"

    def __init__(self, *parts: Part, uncached: Embedder | None = None) -> None:
        self.uncached: Embedder = uncached or self
        self.vectors = np.concatenate([part.vectors for part in parts])
        texts = (text for part in parts for text in part.texts)
        self.row = {text: row for row, text in enumerate(texts)}

    def fit(self, texts: Sequence[Text]) -> Self:
        """Return itself: there is nothing to learn."""
        del texts
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return the vectors of n known texts, shape (n, d)."""
        return self.vectors[[self.row[text] for text in texts]]


def data_folder() -> Path:
    """Return the folder of the datasets.

    Raises
    ------
    SystemExit
        If it is not named or does not exist.
    """
    folder = os.environ.get("TRACER_BENCH_DATA", "")
    if not folder or not Path(folder).is_dir():
        raise SystemExit("set TRACER_BENCH_DATA to the folder that holds banking77_train.csv and its like")
    return Path(folder)


def read(name: str, part: str, teacher: str | None = None) -> tuple[list[Text], Labels]:
    """Return the texts and labels of ``train``, ``test`` or ``foreign``, without vectors."""
    rows = _rows(name, teacher or TEACHERS.get(name, GOLD))[part]
    return [text for text, _ in rows], np.array([label for _, label in rows], np.str_)


def load(
    name: str, progress: Callable[[int, int], None] | None = None, teacher: str | None = None, *, pooled: bool = False
) -> Dataset:
    """Read and embed a dataset.

    ``sick`` embeds the two sentences apart (`tracer_serve.components.embedders._pairs`), ``sick_joined`` as one text.

    Parameters
    ----------
    teacher : column whose labels are the teacher's; None: `TEACHERS`, else the gold labels
    pooled : draw the test rows at random (seed 0) from all rows instead of using the official split
    """
    teacher = teacher or TEACHERS.get(name, GOLD)
    rows = _rows(name, teacher)
    if pooled:
        rows = rows | _pooled(rows["train"], rows["test"])
    cached = CachedEmbedder(embedders.build("sentence_transformers", {"model": ENCODER}), _VECTORS, progress)
    embedder: Embedder = PairEmbedder(cached) if name == "sick" else cached

    def part(rows: list[tuple[Text, str]]) -> Part:
        texts = [text for text, _ in rows]
        labels = np.array([label for _, label in rows], np.str_)
        return Part(texts, labels, embedder.embed(texts) if texts else np.empty((0, 0), np.float32))

    train, test, foreign = (part(rows.get(key, [])) for key in ("train", "test", "foreign"))
    return Dataset(name, train, test, foreign, teacher)


def with_noise(data: Dataset, share: float, seed: int = 0) -> Dataset:
    """Let the teacher err on a share of train and test: the nearest other label among the 10 nearest rows is given.

    An LLM errs where inputs are ambiguous: a row whose neighbours all have its own label keeps it. Which of the others
    err is drawn at random.

    Raises
    ------
    ValueError
        If fewer rows than that have a near neighbour of another label.
    """
    vectors = np.concatenate([data.train.vectors, data.test.vectors])
    labels = np.concatenate([data.train.labels, data.test.labels])
    rows = np.arange(len(labels))
    near = NeighbourIndex(k=_NEAR + 1, cap=len(labels)).fit(vectors, rows).query(vectors).row
    differs = labels[near] != labels[:, None]
    other = labels[near[rows, differs.argmax(axis=1)]]
    wrong = np.random.default_rng(seed).permutation(np.flatnonzero(differs.any(axis=1)))[: round(share * len(labels))]
    if len(wrong) < round(share * len(labels)):
        raise ValueError(f"only {len(wrong)} of {len(labels)} rows have a near neighbour of another label")
    labels[wrong] = other[wrong]
    train, test = np.split(labels, [len(data.train)])
    return replace(data, train=replace(data.train, labels=train), test=replace(data.test, labels=test))


def _pooled(train: list[tuple[Text, str]], test: list[tuple[Text, str]]) -> dict[str, list[tuple[Text, str]]]:
    rows = [*train, *test]
    order = np.random.default_rng(0).permutation(len(rows))
    return {"train": [rows[i] for i in order[: len(train)]], "test": [rows[i] for i in order[len(train) :]]}


def _rows(name: str, teacher: str) -> dict[str, list[tuple[Text, str]]]:
    """Return a dataset's rows by part, labelled by a teacher."""
    folder = data_folder()
    if name in TEACHERS:
        return _recorded(folder / f"{name}.csv", teacher)
    if teacher != GOLD:
        raise SystemExit(f"{name} has gold labels only; datasets with recorded teachers: {', '.join(TEACHERS)}")
    return _READERS[name](folder)


def _recorded(file: Path, teacher: str) -> dict[str, list[tuple[Text, str]]]:
    """Read recorded answers of LLMs; the dev rows are traces too."""
    parts: dict[str, list[tuple[Text, str]]] = {"train": [], "test": []}
    with file.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        if teacher not in (known := set(rows.fieldnames or ()) - {"text", "split"}):
            raise SystemExit(f"{file.name} has no teacher {teacher!r}; it has {', '.join(sorted(known))}")
        for row in rows:
            parts["test" if row["split"] == "test" else "train"].append((row["text"], row[teacher]))
    return parts


def _moderation(folder: Path) -> dict[str, list[tuple[Text, str]]]:
    with (folder / "moderation.csv").open(encoding="utf-8", newline="") as file:
        rows: list[tuple[Text, str]] = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    return {"train": rows[:8000], "test": rows[8000:]}


def _banking77(folder: Path) -> dict[str, list[tuple[Text, str]]]:
    def read(part: str) -> list[tuple[Text, str]]:
        with (folder / f"banking77_{part}.csv").open(encoding="utf-8", newline="") as file:
            return [(row["text"], row["category"]) for row in csv.DictReader(file)]

    return {part: read(part) for part in ("train", "test")}


def _clinc150(folder: Path) -> dict[str, list[tuple[Text, str]]]:
    parts = json.loads((folder / "clinc150_full.json").read_text(encoding="utf-8"))
    names = {"train": "train", "test": "test", "foreign": "oos_test"}
    return {part: [(text, intent) for text, intent in parts[name]] for part, name in names.items()}


def _sick(folder: Path) -> dict[str, list[tuple[Text, str]]]:
    def read(part: str) -> list[tuple[Text, str]]:
        with (folder / f"sick_{part}.tsv").open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            return [((row["sentence_A"], row["sentence_B"]), row["entailment_judgment"]) for row in rows]

    return {part: read(part) for part in ("train", "test")}


def _sick_joined(folder: Path) -> dict[str, list[tuple[Text, str]]]:
    return {part: [(" [SEP] ".join(pair), label) for pair, label in rows] for part, rows in _sick(folder).items()}


_READERS: dict[str, Callable[[Path], dict[str, list[tuple[Text, str]]]]] = {
    "banking77": _banking77,
    "clinc150": _clinc150,
    "moderation": _moderation,
    "sick": _sick,
    "sick_joined": _sick_joined,
}
