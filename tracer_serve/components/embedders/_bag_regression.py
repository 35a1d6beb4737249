"""Tune token vectors so that a text's mean comes close to an encoder's vector: ridge regression from bags of tokens."""

from collections.abc import Sequence

import numpy as np

from tracer_serve.types import Floats, Ints, Vectors


def tune(
    distilled: Vectors, weight: Floats, tokens: Sequence[Sequence[int]], target: Vectors, *, ridge: float, most: int
) -> Vectors:
    """Return the token vectors, weighed, so that the sum of a text's tokens points to its target; shape (v, d).

    With B the bags (rows: each token's share of its text's weight), Y the targets and W the distilled vectors, shifted
    and scaled to fit, it returns W + D that minimises ``|Y - B (W + D)|^2 + ridge |D|^2``. Tokens that no text has stay
    at W. The shift matters: all tokens' vectors share what the encoder makes of the special tokens around them.

    Parameters
    ----------
    distilled : vector of each token, shape (v, d)
    weight : of each token in a mean, shape (v,)
    tokens : of each of n texts
    target : shape (n, d)
    most : number of tokens that are tuned, the most common ones
    """
    from scipy.linalg import cho_factor, cho_solve  # noqa: PLC0415  # the fit alone needs it
    from scipy.sparse import csr_matrix  # noqa: PLC0415

    row = np.repeat(np.arange(len(tokens)), [len(ids) for ids in tokens])
    token = np.concatenate([np.array(ids, np.int64) for ids in tokens])
    share = weight[token] / np.maximum(np.bincount(row, weight[token], len(tokens)), 1e-12)[row]
    bags = csr_matrix((share, (row, token)), shape=(len(tokens), len(distilled)))
    mean, middle = np.asarray(bags @ distilled, np.float64), target.mean(axis=0, dtype=np.float64)
    centre = mean.mean(axis=0)
    apart, wanted = mean - centre, target - middle
    scale = float((apart * wanted).sum() / max((apart * apart).sum(), 1e-12))
    vectors = (middle + scale * (distilled - centre)).astype(np.float32)
    used = _most_common(token, most)
    if len(used):
        some = bags[:, used]
        gram = (some.T @ some).toarray()
        gram[np.diag_indices_from(gram)] += ridge
        vectors[used] += cho_solve(cho_factor(gram, overwrite_a=True), some.T @ (wanted - scale * apart))
    tuned: Vectors = weight[:, None] * vectors
    return tuned


def _most_common(token: Ints, most: int) -> Ints:
    found, count = np.unique(token, return_counts=True)
    common: Ints = np.sort(found[np.argsort(-count, kind="stable")[:most]])
    return common
