"""The n-gram embedder."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer_serve.components.embedders.ngrams import NGrams
from tracer_serve.components.hashed_ngrams import count_ngrams, weigh
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import embedders
from tracer_serve.errors import BadInputError, FitError, PluginError

VERBS = ["lost", "stole", "froze", "ordered", "activated", "cancelled"]
THINGS = ["card", "account", "transfer", "top up", "refund", "pin"]
TEXTS = [f"I {verb} my {thing}{tail}" for verb in VERBS for thing in THINGS for tail in ("", " today", ", please help")]


@pytest.fixture(scope="module")
def fitted() -> NGrams:
    return NGrams(dim=24).fit(TEXTS)


def test_vectors_are_unit_norm_float32(fitted: NGrams) -> None:
    """Each text becomes a float32 vector of length 1."""
    vectors = fitted.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 24)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)


def test_a_vector_does_not_depend_on_its_batch(fitted: NGrams) -> None:
    """Alone or among others, a text gets bit for bit the same vector: no score flips at the threshold."""
    together = fitted.embed(TEXTS)
    for i in (0, 17, 60):
        np.testing.assert_array_equal(fitted.embed([TEXTS[i]])[0], together[i])


def test_misspelt_text_stays_near(fitted: NGrams) -> None:
    """A typo moves a text less than another topic does."""
    right, typo, other = fitted.embed(["I lost my card", "I losst my cadr", "I ordered my refund"])
    assert right @ typo > right @ other


def test_nearest_neighbour_shares_the_topic(fitted: NGrams) -> None:
    """Unseen phrasings find the training text with their verb and thing."""
    found = fitted.embed([f"today I {verb} my {thing}" for verb in VERBS for thing in THINGS]) @ fitted.embed(TEXTS).T
    assert all(int(best) // 3 == i for i, best in enumerate(found.argmax(axis=1)))


def test_projection_is_the_truncated_svd(fitted: NGrams) -> None:
    """The projection spans the leading right singular vectors of the weighted counts, as an exact SVD finds them."""
    value, column, starts = weigh(count_ngrams(TEXTS), len(TEXTS), fitted.grams, fitted.idf)
    dense = np.zeros((len(TEXTS), len(fitted.grams)), np.float64)
    dense[np.repeat(np.arange(len(TEXTS)), np.diff(starts)), column] = value
    np.testing.assert_allclose(np.linalg.norm(dense, axis=1), 1, rtol=1e-6)
    kept = np.linalg.norm(dense @ fitted.components) ** 2
    best = (np.linalg.svd(dense, compute_uv=False)[:24] ** 2).sum()
    assert best * 0.99 <= kept <= best * (1 + 1e-5)
    np.testing.assert_allclose(fitted.components.T @ fitted.components, np.eye(24), atol=1e-5)


def test_state_round_trips_without_pickle(fitted: NGrams, tmp_path: Path) -> None:
    """A loaded embedder has the same fingerprint and vectors."""
    save_component(fitted, tmp_path / "state")
    again = load_component(NGrams, tmp_path / "state")
    assert again.fingerprint == fitted.fingerprint
    np.testing.assert_array_equal(again.embed(TEXTS), fitted.embed(TEXTS))


def test_fit_repeats_bit_for_bit(fitted: NGrams) -> None:
    """The same texts and seed give the same fingerprint, and the order of dicts or hash seeds plays no part."""
    assert NGrams(dim=24).fit(TEXTS).fingerprint == fitted.fingerprint


def test_fingerprint_follows_texts_and_parameters(fitted: NGrams) -> None:
    """Other texts or parameters are another embedder."""
    others = [NGrams(dim=24).fit(TEXTS[1:]), NGrams(dim=23).fit(TEXTS), NGrams(dim=24, max_chars=9).fit(TEXTS)]
    assert len({fitted.fingerprint, NGrams(dim=24).fingerprint, *(other.fingerprint for other in others)}) == 5


def test_few_rows_give_fewer_dimensions() -> None:
    """The default length shrinks to what the rows can span."""
    assert NGrams().fit(TEXTS[:5]).embed(["I lost it"]).shape == (1, 5)
    assert NGrams().fit(["one text only"]).embed(["one text only"]).shape == (1, 1)


def test_caps_bound_memory_and_time() -> None:
    """N-grams never exceed `max_features`, rows over `max_rows` are sampled, characters over `max_chars` ignored."""
    model = NGrams(dim=8, max_features=50, max_rows=20, max_chars=30).fit(TEXTS)
    assert model.components.shape == (50, 8)
    long = "I lost my card, please help me!!" + " refund" * 1000
    np.testing.assert_array_equal(model.embed([long]), model.embed([long[:30]]))


@given(st.lists(st.text(), max_size=5))
@settings(max_examples=50)
def test_any_text_embeds_to_length_one_or_zero(texts: list[str]) -> None:
    """Whatever a client sends is a finite vector, of length 1, or 0 where nothing of it is known."""
    lengths = np.linalg.norm(NGrams(dim=4).fit(TEXTS[:12]).embed([*texts, "\ud800 \0 card"]), axis=1)
    assert np.all(np.isclose(lengths, 1, atol=1e-5) | (lengths == 0))


def test_embedding_needs_no_sklearn(fitted: NGrams, tmp_path: Path) -> None:
    """A serving process loads and embeds with numpy alone."""
    save_component(fitted, tmp_path / "state")
    code = (
        "import sys; from pathlib import Path; from tracer_serve.components.persistence import load_component;"
        "from tracer_serve.components.embedders.ngrams import NGrams;"
        f"print(load_component(NGrams, Path({str(tmp_path / 'state')!r})).embed(['lost card']).shape);"
        "assert not {'sklearn', 'scipy', 'torch'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(1, 24)\n", "")


def test_empty_batch_has_no_rows(fitted: NGrams) -> None:
    """No texts, no rows, the same width."""
    assert fitted.embed([]).shape == (0, 24)


@pytest.mark.parametrize("texts", [[], ["", " \n", "\t"]])
def test_texts_without_words_cannot_be_fitted(texts: list[str]) -> None:
    """A fit on nothing says that the inputs are empty."""
    with pytest.raises(FitError, match="no words"):
        NGrams().fit(texts)


def test_unfitted_embedder_says_so() -> None:
    """Embedding before a fit is an error, not zeros."""
    with pytest.raises(FitError, match="not fitted"):
        NGrams().embed(["text"])


def test_pairs_are_refused(fitted: NGrams) -> None:
    """A pair is for the pair embedder."""
    with pytest.raises(BadInputError, match="pair"):
        fitted.embed([("a", "b")])


def test_parameters_are_bounded() -> None:
    """The YAML's values are checked by the signature."""
    with pytest.raises(PluginError, match="'dim'"):
        embedders.build("ngrams", {"dim": 0})
    assert isinstance(embedders.build("ngrams"), NGrams)
