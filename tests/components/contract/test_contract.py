import json
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import pytest

from tracer_serve.components.contract import acceptors as acceptor_checks
from tracer_serve.components.contract import check_acceptor, check_embedder, check_surrogate
from tracer_serve.components.contract import embedders as embedder_checks
from tracer_serve.components.contract import surrogates as surrogate_checks
from tracer_serve.components.registry import acceptors, embedders, surrogates
from tracer_serve.errors import PluginError
from tracer_serve.types import Bools, Evidence, Floats, Inputs, Labels, Text, Vectors

LIGHTER: dict[str, dict[str, Any]] = {"mlp": {"hidden": 64}, "random_forest": {"trees": 10}}


def built_in(registry: Any) -> list[str]:
    """Names of the built-ins: plugins that other tests register are checked there."""
    return [name for name in registry.names() if name in registry._builtin_names()]


@pytest.mark.parametrize("name", sorted({*built_in(surrogates)} - {"encoder"}))  # it has its own, on a tiny model
def test_every_surrogate_keeps_the_contract(name: str) -> None:
    """All built-in surrogates pass all checks."""
    if name == "xgboost":
        pytest.importorskip("xgboost")
    check_surrogate(lambda: surrogates.build(name, LIGHTER.get(name)), name)


@pytest.mark.parametrize("name", built_in(acceptors))
def test_every_acceptor_keeps_the_contract(name: str) -> None:
    """All built-in acceptors pass all checks."""
    check_acceptor(lambda: acceptors.build(name), name)


def test_the_trainable_embedder_keeps_the_contract() -> None:
    """`ngrams` passes all checks."""
    check_embedder(lambda: embedders.build("ngrams", {"dim": 8}), "ngrams")


def test_a_frozen_embedder_keeps_the_contract() -> None:
    """`precomputed` passes all checks on texts that are vectors."""
    texts = [json.dumps(v) for v in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0])]
    check_embedder(lambda: embedders.build("precomputed", {"dim": 3}), "precomputed", texts, texts[1:3])


class GoodSurrogate:
    """Softmax over the similarity to class means: passes everything."""

    def __init__(self) -> None:
        self.classes_: Labels = np.empty(0, np.str_)
        self.means_: Floats = np.empty((0, 0), np.float32)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        self.classes_ = np.unique(labels)
        self.means_ = np.stack([inputs.embeddings[labels == c].mean(axis=0) for c in self.classes_])
        return self

    def predict_proba(self, inputs: Inputs) -> Floats:
        mass = np.exp(5 * inputs.embeddings @ self.means_.T)
        found: Floats = mass / mass.sum(axis=1, keepdims=True)
        return found


class ReturnsNothing(GoodSurrogate):
    def fit(self, inputs: Inputs, labels: Labels) -> Any:
        super().fit(inputs, labels)


class KeepsItsMeansInItsClass(GoodSurrogate):
    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        super().fit(inputs, labels)
        type(self).means_ = self.__dict__.pop("means_")
        return self


class ClassesInOrderOfSight(GoodSurrogate):
    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        super().fit(inputs, labels)
        self.classes_ = np.array(list(dict.fromkeys(labels.tolist())))
        return self


class TooManyColumns(GoodSurrogate):
    def predict_proba(self, inputs: Inputs) -> Floats:
        return np.pad(super().predict_proba(inputs), ((0, 0), (0, 1)))


class LogitsForProbabilities(GoodSurrogate):
    def predict_proba(self, inputs: Inputs) -> Floats:
        logits: Floats = inputs.embeddings @ self.means_.T
        return logits


class ColumnsReversed(GoodSurrogate):
    def predict_proba(self, inputs: Inputs) -> Floats:
        return super().predict_proba(inputs)[:, ::-1]


class Unseeded(GoodSurrogate):
    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        super().fit(inputs, labels)
        self.means_ = self.means_ + np.random.default_rng().normal(scale=0.05, size=self.means_.shape)
        return self


class ScaledByTheBatch(GoodSurrogate):
    def predict_proba(self, inputs: Inputs) -> Floats:
        centred = inputs.embeddings - inputs.embeddings.mean(axis=0) if len(inputs) else inputs.embeddings
        return super().predict_proba(Inputs(inputs.texts, centred))


class NormalisesInPlace(GoodSurrogate):
    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        inputs.embeddings[:] = np.round(inputs.embeddings, 2)
        return super().fit(inputs, labels)


class NeedsTwoClasses(GoodSurrogate):
    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        if len(set(labels.tolist())) < 2:
            raise ValueError("needs samples of at least 2 classes")
        return super().fit(inputs, labels)


class NeedsTwoRowsPerClass(GoodSurrogate):
    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        super().fit(inputs, labels)
        if min(np.unique(labels, return_counts=True)[1]) < 2:
            self.means_ = np.full_like(self.means_, np.nan)
        return self


class DividesByTheLength(GoodSurrogate):
    def predict_proba(self, inputs: Inputs) -> Floats:
        with np.errstate(invalid="ignore"):
            unit = inputs.embeddings / np.linalg.norm(inputs.embeddings, axis=1, keepdims=True)
        return super().predict_proba(Inputs(inputs.texts, unit))


class NeedsARow(GoodSurrogate):
    def predict_proba(self, inputs: Inputs) -> Floats:
        return np.concatenate(
            [super(NeedsARow, self).predict_proba(inputs.take(np.array([i]))) for i in range(len(inputs))]
        )


class KeepsAFunction(GoodSurrogate):
    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        super().fit(inputs, labels)
        self.transform = np.tanh
        return self


class ForgetsItsMembers(GoodSurrogate):
    def predict_members(self, inputs: Inputs) -> Vectors:
        return np.stack([super().predict_proba(inputs), super().predict_proba(inputs)]).astype(np.float32)

    def combine(self, members: Vectors) -> Vectors:
        return np.full_like(members[0], 1 / members.shape[2])


class GoodAcceptor:
    """The largest probability: passes everything."""

    def features(self, evidence: Evidence) -> Vectors:
        top: Vectors = evidence.proba.max(axis=1, keepdims=True)
        return top

    def fit(self, features: Vectors, agreed: Bools) -> Self:
        self.rows = len(features) + 0 * int(agreed.sum())
        return self

    def score(self, features: Vectors) -> Floats:
        return features[:, 0]


class OneDimensional(GoodAcceptor):
    def features(self, evidence: Evidence) -> Vectors:
        top: Vectors = evidence.proba.max(axis=1)
        return top


class RanksInTheBatch(GoodAcceptor):
    def features(self, evidence: Evidence) -> Vectors:
        top = super().features(evidence)
        return np.argsort(np.argsort(top, axis=0), axis=0).astype(np.float32)


class FitsToNothing(GoodAcceptor):
    def fit(self, features: Vectors, agreed: Bools) -> Any:
        super().fit(features, agreed)


class Infinite(GoodAcceptor):
    def score(self, features: Vectors) -> Floats:
        return np.where(features[:, 0] > 0.9, np.inf, features[:, 0])


class RiskForSafety(GoodAcceptor):
    def score(self, features: Vectors) -> Floats:
        return 1 - features[:, 0]


class UnseededAcceptor(GoodAcceptor):
    def fit(self, features: Vectors, agreed: Bools) -> Self:
        self.noise = float(np.random.default_rng().normal())
        return super().fit(features, agreed)

    def score(self, features: Vectors) -> Floats:
        return features[:, 0] + self.noise


class StandardisesInPlace(GoodAcceptor):
    def score(self, features: Vectors) -> Floats:
        features -= features.mean(axis=0) if len(features) else 0
        return features[:, 0]


class NeedsADisagreement(GoodAcceptor):
    def fit(self, features: Vectors, agreed: Bools) -> Self:
        if agreed.all():
            raise ValueError("needs samples of at least 2 classes")
        return super().fit(features, agreed)


class NeedsARunnerUp(GoodAcceptor):
    def features(self, evidence: Evidence) -> Vectors:
        top = np.partition(evidence.proba, -2, axis=1)
        return top[:, -1:] - top[:, -2:-1]


class NeedsNeighbours(GoodAcceptor):
    def features(self, evidence: Evidence) -> Vectors:
        nearest = evidence.neighbours.similarity[:, :1]
        found: Vectors = super().features(evidence) + nearest
        return found


class NeedsRows(GoodAcceptor):
    def score(self, features: Vectors) -> Floats:
        found: Floats = features[:, 0] + 0 * features.max()
        return found


class ForgetsItsWeights(GoodAcceptor):
    def fit(self, features: Vectors, agreed: Bools) -> Self:
        self.weigh = lambda x: 2 * x
        return super().fit(features, agreed)


class GoodEmbedder:
    """Counts letters, relative to how often the fit has seen them: passes everything."""

    trainable = True

    def __init__(self) -> None:
        self.seen = np.ones(128)

    @property
    def fingerprint(self) -> str:
        return f"letters-{self.seen.sum():.0f}-{(self.seen * np.arange(128)).sum():.0f}"

    def fit(self, texts: Sequence[Text]) -> Self:
        self.seen = 1 + np.sum([self._count(text) for text in texts], axis=0)
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        out = np.zeros((len(texts), 128), np.float32)
        for i, text in enumerate(texts):
            out[i] = self._count(text) / self.seen
        return out

    def _count(self, text: Text) -> np.ndarray[Any, np.dtype[np.intp]]:
        return np.bincount([min(ord(c), 127) for c in str(text)], minlength=128)


class DoublePrecision(GoodEmbedder):
    def embed(self, texts: Sequence[Text]) -> Any:
        return super().embed(texts).astype(float)


class CentredOnTheBatch(GoodEmbedder):
    def embed(self, texts: Sequence[Text]) -> Vectors:
        found = super().embed(texts)
        return found - found.mean(axis=0) if len(texts) else found


class Constant(GoodEmbedder):
    def embed(self, texts: Sequence[Text]) -> Vectors:
        return np.ones((len(texts), 4), np.float32)


class FingerprintByIdentity(GoodEmbedder):
    @property
    def fingerprint(self) -> str:
        return f"letters-{id(self)}"


class FingerprintOfTheClass(GoodEmbedder):
    @property
    def fingerprint(self) -> str:
        return "letters"


class RandomProjection(GoodEmbedder):
    def fit(self, texts: Sequence[Text]) -> Self:
        super().fit(texts)
        self.matrix = np.random.default_rng().normal(size=(128, 4)).astype(np.float32)
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        found: Vectors = super().embed(texts) @ self.matrix
        return found


class NeedsAText(GoodEmbedder):
    def embed(self, texts: Sequence[Text]) -> Vectors:
        return np.stack([super(NeedsAText, self).embed([text])[0] for text in texts])


class ForgetsItsFit(GoodEmbedder):
    @classmethod
    def load(cls, folder: object) -> Self:
        del folder
        return cls()

    def save(self, folder: object) -> None:
        del folder


SURROGATES = {
    ReturnsNothing: "fit_returns_the_surrogate",
    ClassesInOrderOfSight: "classes_are_sorted",
    TooManyColumns: "proba_has_one_column_per_class",
    LogitsForProbabilities: "proba_is_a_distribution",
    ColumnsReversed: "columns_follow_classes",
    Unseeded: "fits_are_deterministic",
    KeepsItsMeansInItsClass: "fits_stand_alone",
    ScaledByTheBatch: "rows_are_independent",
    NormalisesInPlace: "inputs_stay_as_they_were",
    NeedsTwoClasses: "a_single_class_is_certain",
    NeedsTwoRowsPerClass: "a_class_with_one_row_survives",
    DividesByTheLength: "strange_texts_survive",
    NeedsARow: "an_empty_batch_survives",
    KeepsAFunction: "state_survives_the_disk",
    ForgetsItsMembers: "members_combine_to_the_whole",
}
ACCEPTORS = {
    OneDimensional: "features_are_a_float_table",
    RanksInTheBatch: "features_learn_nothing",
    FitsToNothing: "fit_returns_the_acceptor",
    Infinite: "score_is_finite_or_nan",
    RiskForSafety: "higher_is_safer",
    UnseededAcceptor: "fits_are_deterministic",
    StandardisesInPlace: "inputs_stay_as_they_were",
    NeedsADisagreement: "agreement_alone_survives",
    NeedsARunnerUp: "a_single_class_survives",
    NeedsNeighbours: "missing_neighbours_survive",
    NeedsRows: "an_empty_batch_survives",
    ForgetsItsWeights: "state_survives_the_disk",
}
EMBEDDERS = {
    DoublePrecision: "vectors_are_a_float_table",
    CentredOnTheBatch: "equal_texts_have_equal_vectors",
    Constant: "other_texts_have_other_vectors",
    FingerprintByIdentity: "fingerprint_is_stable",
    FingerprintOfTheClass: "only_texts_change_a_fit",
    RandomProjection: "fits_are_deterministic",
    NeedsAText: "an_empty_batch_survives",
    ForgetsItsFit: "state_survives_the_disk",
}


def test_good_plugins_pass() -> None:
    """What the broken ones below are made of is accepted."""
    check_surrogate(GoodSurrogate)
    check_acceptor(GoodAcceptor)
    check_embedder(GoodEmbedder)


@pytest.mark.parametrize(("broken", "check"), SURROGATES.items())
def test_a_broken_surrogate_is_caught(broken: type, check: str) -> None:
    """Each breach is caught by the check of its property, and the error names both."""
    with pytest.raises(PluginError, match=f"mine fails the check '{check}'"):
        check_surrogate(broken, "mine")


@pytest.mark.parametrize(("broken", "check"), ACCEPTORS.items())
def test_a_broken_acceptor_is_caught(broken: type, check: str) -> None:
    """Each breach is caught by the check of its property, and the error names both."""
    with pytest.raises(PluginError, match=f"mine fails the check '{check}'"):
        check_acceptor(broken, "mine")


@pytest.mark.parametrize(("broken", "check"), EMBEDDERS.items())
def test_a_broken_embedder_is_caught(broken: type, check: str) -> None:
    """Each breach is caught by the check of its property, and the error names both."""
    with pytest.raises(PluginError, match=f"mine fails the check '{check}'"):
        check_embedder(broken, "mine")


@pytest.mark.parametrize(
    ("checks", "caught"),
    [
        (surrogate_checks.CHECKS, SURROGATES),
        (acceptor_checks.CHECKS, ACCEPTORS),
        (embedder_checks.CHECKS, EMBEDDERS),
    ],
)
def test_every_check_has_a_breach_above(checks: Sequence[Callable[[Any], None]], caught: dict[type, str]) -> None:
    """No check is there that could not fail."""
    assert {check.__name__ for check in checks} == set(caught.values())


def test_the_error_tells_the_property_and_how_its_breach_shows() -> None:
    """The message names the required property, what was found, and the file of the contract."""
    with pytest.raises(PluginError) as error:
        check_surrogate(NeedsTwoClasses, "mine")
    message = str(error.value)
    assert "imitated with probability 1" in message
    assert "it raised ValueError: needs samples of at least 2 classes" in message
    assert "protocols.py" in message
    assert isinstance(error.value.__cause__, ValueError)
