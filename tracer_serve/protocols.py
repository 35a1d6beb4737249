"""The interface of every kind of component. A plugin is a class that fits one of these; nothing is inherited.

The parameters of a component's ``__init__`` are the schema of its block in the YAML.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from tracer_serve.types import Answer, Bools, Evidence, Floats, Inputs, Ints, Labels, Text, Vectors


class Embedder(Protocol):
    """Texts to vectors.

    `fit` sees texts only, never labels; a frozen embedder returns itself unchanged and says ``trainable = False``.
    `fingerprint` names model, parameters, precision and fitted state: two embedders with the same fingerprint
    give the same vectors, and a certificate is void under another one.
    """

    trainable: bool

    @property
    def fingerprint(self) -> str: ...
    def fit(self, texts: Sequence[Text]) -> Self: ...
    def embed(self, texts: Sequence[Text]) -> Vectors: ...


@runtime_checkable
class Imitating(Protocol):
    """A trainable embedder that learns from the vectors of a slow, frozen one, its `encoder`.

    `imitate` lets that one embed n texts, once for several fits on some of them. A refit puts its cache of vectors
    around `encoder`.
    """

    encoder: Embedder

    def imitate(self, texts: Sequence[Text]) -> None: ...


class Truncating(Protocol):
    """An embedder or a surrogate that may read only a part of a long text; such texts are deferred.

    `truncates` returns shape (n,), and is quick for short texts: it is asked about every text.
    """

    def truncates(self, texts: Sequence[Text]) -> Bools: ...


class Surrogate(Protocol):
    """A cheap model that imitates the teacher.

    `predict_proba` returns shape (n, k): rows sum to 1, columns in the order of `classes_` (sorted, as fitted).
    One that says ``stable = True`` declares that a fit on nine tenths of the rows answers about as well as one on all
    of them, and that repeated fits do. Otherwise the fit holds rows out and tests the very model that serves, as in
    `gate.mode: strict`: models of folds say nothing about another training run.
    """

    classes_: Labels

    def fit(self, inputs: Inputs, labels: Labels) -> Self: ...
    def predict_proba(self, inputs: Inputs) -> Floats: ...


@runtime_checkable
class Ensemble(Protocol):
    """A surrogate made of members whose disagreement is evidence for the acceptor.

    `predict_members` returns shape (m, n, k) in the order of `classes_`; `combine` makes of it what
    `predict_proba` returns.
    """

    def predict_members(self, inputs: Inputs) -> Vectors: ...
    def combine(self, members: Vectors) -> Vectors: ...


@runtime_checkable
class RowScaled(Protocol):
    """A surrogate whose regularisation is per row: the refit on all rows must not be sharper than its folds.

    `refit_rows` is set before `fit` to the number of rows of the final fit (gate.md, section 3); None: this fit's own.
    """

    refit_rows: int | None


@runtime_checkable
class HoldsOut(Protocol):
    """An expensive surrogate that is trained once and holds out some of its rows to decide when to stop.

    `held_out_` are the indices of those rows, shape (h,), after `fit`: a blend reads its weights off them.
    """

    held_out_: Ints


@runtime_checkable
class Resumable(Protocol):
    """An expensive surrogate that continues from an earlier version's weights, in `gate.mode: strict`.

    `resumes` says whether it does; a blend does where a member does. `resume` is called before the final fit, with the
    folder of the earlier one (None: there is none) and hashes of the rows that this fit will see and of those that the
    certificate is based on. It must not continue from a model that has seen one of the latter.
    """

    @property
    def resumes(self) -> bool: ...
    def resume(self, folder: Path | None, seen: Ints, apart: Ints) -> None: ...


class Acceptor(Protocol):
    """Scores how safe the surrogate's answer is.

    `features` learns nothing: evidence to float32 of shape (n, f), so that rows of different folds can be stacked.
    `fit` learns from features and whether the teacher agreed; `score` returns shape (n,), higher is safer, NaN where
    nothing can be said (never handled). One whose score does not depend on `agreed` may set ``learnt = False``: a
    learnt score is used only if it ranks agreements above disagreements (`fit.scoring.cross_score`).
    """

    def features(self, evidence: Evidence) -> Vectors: ...
    def fit(self, features: Vectors, agreed: Bools) -> Self: ...
    def score(self, features: Vectors) -> Floats: ...


class Teacher(Protocol):
    """The reference labeller.

    `label` raises `TeacherError` rather than ever making up a label. `fingerprint` hashes what changes the labels:
    model, prompt, label set, temperature.
    """

    @property
    def fingerprint(self) -> str: ...
    async def label(self, text: Text) -> Answer: ...
    async def close(self) -> None: ...


@runtime_checkable
class Remembering(Protocol):
    """A teacher that caches its answers; `forget` drops a text's answer."""

    def forget(self, text: Text) -> None: ...


class Redactor(Protocol):
    """Takes out of a text what must not be kept: the same text always comes out the same."""

    def redact(self, text: str) -> str: ...


@runtime_checkable
class Persistent(Protocol):
    """A component that writes and reads its own files; others are written by `components.persistence`."""

    def save(self, folder: Path) -> None: ...
    @classmethod
    def load(cls, folder: Path) -> Self: ...
