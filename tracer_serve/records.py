"""The values that travel between the layers: frozen, without behaviour beyond selecting rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

Text: TypeAlias = str | tuple[str, str]
"""One input: a text, or a pair of texts."""
Vectors: TypeAlias = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.floating[Any]]
Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.integer[Any]]
Labels: TypeAlias = NDArray[np.str_]

DecisionKind = Literal["handled", "deferred", "degraded"]
LabelSource = Literal["teacher", "audit", "import", "human"]


@dataclass(frozen=True, slots=True)
class Inputs:
    """A batch of inputs.

    Parameters
    ----------
    texts : n texts, or n pairs of texts
    embeddings : float32, shape (n, d), unit norm for the built-in single-text embedders
    searched : what searches for nearest rows found, by who was searched; shared by all that ask about this batch
    """

    texts: Sequence[Text]
    embeddings: Vectors
    searched: dict[object, tuple[Vectors, Ints]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Ints) -> "Inputs":
        """Return the rows given by index."""
        found = {key: (similarity[rows], row[rows]) for key, (similarity, row) in self.searched.items()}
        return Inputs([self.texts[i] for i in rows], self.embeddings[rows], found)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest training rows of each row of a batch, nearest first.

    Parameters
    ----------
    similarity : cosine, float32, shape (n, m); -inf where fewer than m rows exist
    label : index into the surrogate's classes, shape (n, m)
    row : index of the training row, shape (n, m)
    """

    similarity: Vectors
    label: Ints
    row: Ints


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an acceptor may look at for a batch of n inputs and k classes.

    Parameters
    ----------
    inputs : the batch
    proba : the surrogate's probabilities, float32, shape (n, k)
    members : the probabilities of each member of a blend, shape (m, n, k); m = 1 for a plain surrogate
    neighbours : nearest training rows
    """

    inputs: Inputs
    proba: Vectors
    members: Vectors
    neighbours: Neighbours


@dataclass(frozen=True, slots=True)
class Answer:
    """A teacher's answer to one text.

    Parameters
    ----------
    label : one of the task's labels
    usage : tokens, ``prompt_tokens`` and ``completion_tokens``; empty where the teacher counts none
    cost : money in the currency of the teacher's price; 0.0 without a price
    latency_ms : from asking to answer, retries included
    """

    label: str
    usage: dict[str, int] = field(default_factory=dict)
    cost: float = 0.0
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Trace:
    """One input with the teacher's label, and how it came about. One row of the trace store.

    Parameters
    ----------
    id : UUIDv7, sorts by time
    ts : when, UTC
    input : a text or a pair
    teacher_label : None for a handled request that was not audited
    label_source : how `teacher_label` came about; None while there is none
    decision : None for an imported row
    propensity : probability with which the teacher was asked (1.0 where it always was)
    version : the version that decided (its epoch); None before the first, and for imported rows
    audit_rate : the audit rate in force when the row was decided
    u : drawn once from U(0, 1); audits are the handled rows with u < audit_rate, and calibration thins the
        deferred rows of an epoch by the same draw
    cost : what the teacher's answer cost, in the price's currency
    latency_ms : by stage: ``embed``, ``predict``, ``teacher``
    """

    id: str
    ts: datetime
    task: str
    input: Text
    teacher_label: str | None = None
    label_source: LabelSource | None = None
    surrogate_label: str | None = None
    score: float | None = None
    decision: DecisionKind | None = None
    propensity: float = 1.0
    version: int | None = None
    audit_rate: float = 1.0
    u: float = 0.0
    teacher_fingerprint: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    cost: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says of one input.

    Parameters
    ----------
    label : the surrogate's label
    score : the acceptor's score, higher is safer; NaN is never handled
    handled : whether the certificate lets the surrogate answer
    reason : ``certified``, ``below_threshold``, ``out_of_scope``, ``class_not_certified`` or ``no_certificate``
    runner_up : the second most probable label, None with a single class
    proba : probability per class, shape (k,)
    stage : the stage of the policy that was asked last, counted from 0
    """

    label: str
    score: float
    handled: bool
    reason: str
    runner_up: str | None
    proba: Vectors
    stage: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """The product's answer to one request.

    Parameters
    ----------
    label : the answer
    kind : ``handled``, ``deferred`` or ``degraded``
    reason : why it was handled or not, as in `Verdict`, or ``gate_closed``, ``observe``, ``canary``,
        ``no_version``, ``policy_failed``, ``teacher_down``
    version : the version that decided, None before the first
    """

    label: str
    kind: DecisionKind
    reason: str
    trace_id: str
    version: int | None
    verdict: Verdict | None = None
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One tested threshold of a certificate's walk: n accepted rows, k of which agree, and the p-value that decides.

    That is the larger one of all rows and of one row per group of near-duplicates.
    """

    threshold: float
    n: int
    k: int
    p: float


@dataclass(frozen=True, slots=True)
class ClassRow:
    """What a certificate says of one predicted class.

    Parameters
    ----------
    label : the class the surrogate predicts
    rows : calibration rows with this prediction
    n, agreements : how many of them are accepted, and how many of those agree
    lower_bound : Clopper-Pearson lower bound of the agreement among them; where not `certified` it is pointwise, one
        look at one class, and promises nothing for the whole table
    threshold : least score of this class that is handled
    certified : whether this class has a certificate of its own (``per_class``)
    reason : ``marginal`` where one certificate covers all classes together, else as in `Certificate`
    rows_needed : as in `Certificate`, counted in rows of this class
    """

    label: str
    rows: int
    n: int
    agreements: int
    lower_bound: float
    threshold: float
    certified: bool = False
    reason: str = "marginal"
    rows_needed: int = 0


@dataclass(frozen=True, slots=True)
class StageRow:
    """What one stage of the certified policy contributes.

    Parameters
    ----------
    surrogate, acceptor : registry names; no acceptor for the family `global`
    n, agreements : calibration rows that it handles, and how many of them agree
    share : n as a share of the calibration rows
    asked : share of the calibration rows that reach it
    cpu_ms : CPU of predicting one row in batches, without embedding
    embed_ms : of embedding it and finding its nearest rows before that, by an endpoint the time waited; 0.0 where an
        earlier stage has done so, and where nobody asked for it (no `cascade` in ``gate.families``)
    """

    surrogate: str
    acceptor: str | None
    n: int
    agreements: int
    share: float
    asked: float
    cpu_ms: float
    embed_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why nothing was certified.

    Parameters
    ----------
    cause : ``rows`` (too few), ``representation`` (too weak) or ``teacher`` (too noisy)
    sentence : the verdict with its numbers, and what to do
    numbers : what it rests on
    """

    cause: Literal["rows", "representation", "teacher"]
    sentence: str
    numbers: dict[str, float]


@dataclass(frozen=True, slots=True)
class Certificate:
    """The gate's finding on one version (gate.md, sections 1 to 3).

    Parameters
    ----------
    certified : whether the surrogate may answer
    reason : ``certified``, or why the gate abstained: ``insufficient`` (too few acceptable rows for any test),
        ``disagreement`` (the first test failed), ``coverage`` (certified, but under the least coverage that is worth a
        deployment), ``ineligible`` (no row has a finite score and passes the guards)
    alpha : required teacher agreement
    delta : probability that this certificate is wrong: what it spent of the task's delta
    mode : ``strict`` or ``cross_fit``
    rows : calibration rows, the ineligible ones included
    n, agreements : accepted rows at the threshold, and how many of them agree; where nothing passed, at the first test
    lower_bound : lower bound of the teacher agreement among the handled that holds together with the certificate, at
        1 - delta: the exact bound where all that is acceptable is accepted, else alpha (see `gate.certify`); where
        nothing passed, the exact bound at the first test
    threshold : least score that is handled; -inf accepts all, +inf (abstained) accepts nothing; with `per_class` the
        least of the classes' thresholds, which alone decide
    coverage : certified share of the calibration rows; ineligible rows stay in the denominator
    rows_needed : how many calibration rows more are needed before anything could pass (`insufficient`), or would pass
        at the agreement that was observed (`disagreement`); 0 if rows are not the problem
    walk : the thresholds tested, in order; the last one failed unless it is -inf; empty with `per_class`
    coverage_unguarded : share that the same threshold would accept without scope guard and class floor
    guarantee : ``probability``: agreement >= alpha with probability 1 - delta; ``overall``: see `gate.overall`
    spend : ``per_version``: delta is this version's own; ``series``: it is a part of the task's delta
    index : which certificate of the task this is, counted from 1
    pilot : rows that were spent on finding the start and entered nothing else
    distinct : groups of near-duplicates among the rows; each must do as one row, too
    rivals : surrogates that competed on these rows: the walk was made at ``delta / rivals``, so that delta covers the
        luck of the one that won
    per_class : whether each predicted class has its own certificate, at delta each
    classes : a row per predicted class, worst lower bound first; over all fair rows, the pilot's too
    class_floor : agreement that a predicted class must be shown to exceed before it may be handled; 0: no floor
    stages : what each stage contributes, in the order in which they are asked
    diagnosis : why nothing was certified; None where something was
    """

    __pydantic_config__: ClassVar[ConfigDict] = {"ser_json_inf_nan": "strings"}

    certified: bool
    reason: str
    alpha: float
    delta: float
    mode: str
    rows: int
    n: int
    agreements: int
    lower_bound: float
    threshold: float
    coverage: float
    rows_needed: int = 0
    walk: tuple[Step, ...] = ()
    coverage_unguarded: float = 0.0
    guarantee: str = "probability"
    spend: str = "per_version"
    index: int = 1
    pilot: int = 0
    distinct: int = 0
    rivals: int = 1
    per_class: bool = False
    classes: tuple[ClassRow, ...] = ()
    class_floor: float = 0.0
    stages: tuple[StageRow, ...] = ()
    diagnosis: Diagnosis | None = None
