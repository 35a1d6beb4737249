"""The values that travel between the layers: frozen, without behaviour beyond selecting rows and sides."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Text: TypeAlias = str | tuple[str, str]
"""One input: a text, or a pair of texts."""
Vectors: TypeAlias = NDArray[np.float32]
Floats: TypeAlias = NDArray[np.floating[Any]]
Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.integer[Any]]
Labels: TypeAlias = NDArray[np.str_]

DecisionKind = Literal["handled", "deferred", "degraded"]
LabelSource = Literal["teacher", "audit", "import", "human"]
AuditKind = Literal["random", "burst"]
"""Why a handled text was sent to the teacher too: drawn at random, or one of many alike."""


def sides_of(text: Text) -> tuple[str, ...]:
    """Return what an input is made of: the text itself, or both texts of a pair."""
    return (text,) if isinstance(text, str) else text


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
    similarity : cosine, float32, shape (n, m); -inf if fewer than m rows exist
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
    usage : tokens, ``prompt_tokens`` and ``completion_tokens``; empty if the teacher counts none
    cost : money in the currency of the teacher's price; 0.0 without a price
    latency_ms : from asking to answer, retries included
    others : what it says in fields of text and number, which no certificate is about
    """

    label: str
    usage: dict[str, int] = field(default_factory=dict)
    cost: float = 0.0
    latency_ms: float = 0.0
    others: dict[str, Any] = field(default_factory=dict)


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
    propensity : probability with which the teacher was asked (1.0 if it always was)
    version : the version that decided (its epoch); None before the first, and for imported rows
    audit_rate : the audit rate in force when the row was decided
    u : drawn once from U(0, 1); audits are the handled rows with u < audit_rate, and calibration thins the
        deferred rows of an epoch by the same draw
    cost : what the teacher's answer cost, in the price's currency
    latency_ms : of this text, by stage: ``embed`` and ``predict`` as its share of the batch, ``teacher``
    form : fingerprint of the call's form, which is its prompt without the text; None if it is unknown
    group : rows that are not independent share a group: a caller's own group, a conversation, a template
    key_id : short hash of the key that asked
    audit_kind : why a handled row was audited; None if it was not
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
    form: str | None = None
    group: str | None = None
    key_id: str | None = None
    audit_kind: AuditKind | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says of one input.

    Parameters
    ----------
    label : the surrogate's label
    score : the acceptor's score, higher is safer; NaN is never handled
    handled : whether the certificate lets the surrogate answer
    reason : as in `policy.decision.certificate_reasons`
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
        ``burst_disagreed``, ``no_version``, ``policy_failed``, ``teacher_down``, ``budget_reached``,
        ``form_not_certified``, ``form_disagrees``, ``unfillable_schema``
    version : the version that decided, None before the first
    """

    label: str
    kind: DecisionKind
    reason: str
    trace_id: str
    version: int | None
    verdict: Verdict | None = None
    answer: Answer | None = None


def length_of(text: Text) -> int:
    """Return a text's characters, of a pair both sides'."""
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
