"""Candidate groups for slices: labels, lengths, clusters of the embedding space, n-grams."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.cluster import MiniBatchKMeans
from sklearn.feature_extraction.text import CountVectorizer

from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.json_values import joined
from tracer_serve.types import Ints

_FEWEST = 8  # minimum number of rows of a group
_NGRAMS = 1500
_CLUSTERS = 40
_ROWS_PER_CLUSTER = 50
_LEARNED_ON = 5000  # rows the clusters are fitted on
_LENGTHS = 5
_WORD = r"(?u)\b\w\w+\b"


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Named groups of the n rows.

    Parameters
    ----------
    kind : ``label``, ``length``, ``cluster`` or ``ngram``, per group
    name : per group
    member : 1 if a row belongs to a group, sparse, shape (groups, n)
    """

    kind: list[str]
    name: list[str]
    member: csr_matrix

    @classmethod
    def of(cls, seen: CalibrationView) -> "Groups":
        """Build the groups of at least eight rows."""
        words, vocabulary = _ngrams(seen)
        parts = [
            ("label", [str(label) for label in seen.classes], _one_hot(seen.truth, len(seen.classes))),
            ("length", *_lengths(seen)),
            ("cluster", *_clusters(seen, words, vocabulary)),
            ("ngram", [f"“{gram}”" for gram in vocabulary], words.T.tocsr()),
        ]
        member = _stacked([matrix for _, _, matrix in parts])
        kinds = [kind for kind, names, _ in parts for _ in names]
        names = [name for _, names, _ in parts for name in names]
        size = np.asarray(member.sum(axis=1)).ravel()
        kept = np.flatnonzero((size >= _FEWEST) & (size < len(seen)))
        return cls([kinds[i] for i in kept], [names[i] for i in kept], member[kept])


def _stacked(parts: list[csr_matrix]) -> csr_matrix:
    return csr_matrix(hstack([part.T for part in parts]).T)


def _one_hot(codes: Ints, size: int) -> csr_matrix:
    rows = np.arange(len(codes))
    return csr_matrix((np.ones(len(codes)), (codes, rows)), shape=(size, len(codes)))


def _lengths(seen: CalibrationView) -> tuple[list[str], csr_matrix]:
    words = np.array([len((text if isinstance(text, str) else " ".join(text)).split()) for text in seen.texts])
    edges = np.unique(np.quantile(words, np.linspace(0, 1, _LENGTHS + 1)[1:-1]).astype(int))
    codes = np.searchsorted(edges, words, side="left")
    lows = [int(words.min()), *(int(edge) + 1 for edge in edges)]
    highs = [*(int(edge) for edge in edges), int(words.max())]
    names = [f"{low} words" if low >= high else f"{low} to {high} words" for low, high in zip(lows, highs, strict=True)]
    return names, _one_hot(codes, len(names))


def _ngrams(seen: CalibrationView) -> tuple[csr_matrix, list[str]]:
    """Return which row contains which word or word pair, shape (n, grams), and the n-grams."""
    counter = CountVectorizer(
        ngram_range=(1, 2), min_df=_FEWEST, max_features=_NGRAMS, binary=True, token_pattern=_WORD
    )
    try:
        found = counter.fit_transform([joined(text, 2000) for text in seen.texts])
    except ValueError:  # no n-gram is frequent enough
        return csr_matrix((len(seen), 0)), []
    return csr_matrix(found), counter.get_feature_names_out().tolist()


def _clusters(seen: CalibrationView, words: csr_matrix, vocabulary: list[str]) -> tuple[list[str], csr_matrix]:
    """Return clusters of the embedding space, each named by its most distinctive words."""
    count = min(_CLUSTERS, len(seen) // _ROWS_PER_CLUSTER)
    if count < 2:  # noqa: PLR2004  # one cluster is no slice
        return [], csr_matrix((0, len(seen)))
    rng = np.random.default_rng(0)
    sample = rng.choice(len(seen), min(_LEARNED_ON, len(seen)), replace=False)
    model = MiniBatchKMeans(count, random_state=0, n_init=1, max_iter=20, batch_size=1024).fit(seen.vectors[sample])
    member = _one_hot(model.predict(seen.vectors), count)
    return list(_cluster_names(member, words, vocabulary)), member


def _cluster_names(member: csr_matrix, words: csr_matrix, vocabulary: list[str]) -> Iterator[str]:
    inside, size = (member @ words).toarray(), np.asarray(member.sum(axis=1)).ravel()
    overall = np.asarray(words.sum(axis=0)).ravel() / words.shape[0]
    for i, counts in enumerate(inside):
        share = counts / max(1.0, size[i])
        weight = share * np.log(np.maximum(share, 1e-9) / np.maximum(overall, 1e-9))
        chosen: list[str] = []
        for gram in (vocabulary[j] for j in np.argsort(-weight, kind="stable")[:12]):
            if not any(set(gram.split()) & set(other.split()) for other in chosen):
                chosen.append(gram)
        yield "about " + ", ".join(chosen[:3]) if chosen else f"cluster {i + 1}"
