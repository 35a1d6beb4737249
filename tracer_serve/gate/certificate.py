"""Certificate of a version: the gate's result, stored with the version and shown in its report."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

Basis = Literal["proved", "empirical"]
"""What supports the bound delta of a certificate.

``proved``: the served model was tested on rows that neither trained nor chose it, so the theorem of `gate.marginal`
holds.
``empirical``: models fitted on parts of the rows were tested and one refitted on all of them is served, so the error
rate is known from simulations only.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One tested threshold: n accepted rows, k of which agree, and the p-value of the test.

    The p-value is the larger one of two tests: on all rows, and on one row per group of near-duplicates.
    """

    threshold: float
    n: int
    k: int
    p: float


@dataclass(frozen=True, slots=True)
class ClassRow:
    """Certified agreement of one predicted class.

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
class SegmentRow:
    """Certified agreement and threshold of one segment of the texts.

    Parameters
    ----------
    name, pattern : as in ``gate.segments``; no pattern for the texts that match none
    rows : calibration rows of the segment
    n, agreements : how many of them are accepted, and how many of those agree
    lower_bound : lower bound of the agreement among them, at the segment's part of delta
    threshold : least score of this segment that is handled; infinite if it defers
    certified, reason, rows_needed : as in `Certificate`, of this segment
    """

    name: str
    pattern: str
    rows: int
    n: int
    agreements: int
    lower_bound: float
    threshold: float
    certified: bool
    reason: str
    rows_needed: int = 0


@dataclass(frozen=True, slots=True)
class LabelRecall:
    """Recall of the whole system for one teacher label; deferred requests count as recalled.

    Parameters
    ----------
    label : the teacher's label
    rows : calibration rows that the teacher labels so, the pilot's too
    handled, right : how many of them are handled, and how many of those get this label
    recall : share of the rows that are deferred or get this label
    low, high : exact 95 % interval of the recall, for this label alone
    """

    label: str
    rows: int
    handled: int
    right: int
    recall: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ProtectedLabel:
    """Certified recall of one protected teacher label.

    Parameters
    ----------
    label, required : the label, and the least recall of the system that is promised for it (``gate.protect``)
    rows, kept : calibration rows of the label that were tested, and how many of them are deferred or get the label, at
        the threshold; where nothing passed, at the first test
    lower_bound : lower bound of its recall that holds together with the certificate, at 1 - delta
    """

    label: str
    required: float
    rows: int
    kept: int
    lower_bound: float


@dataclass(frozen=True, slots=True)
class StageRow:
    """Share, agreement and cost of one stage of the certified policy.

    Parameters
    ----------
    surrogate, acceptor : registry names; no acceptor for the family `global`
    n, agreements : calibration rows that it handles, and how many of them agree
    share : n as a share of the calibration rows
    asked : share of the calibration rows that reach it
    cpu_ms : CPU of predicting one row in batches, without embedding
    embed_ms : CPU of embedding a row and finding its nearest rows, for an endpoint the time waited; 0.0 if an earlier
        stage has done so, or without `cascade` in ``gate.families``
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
    """Diagnosis of a fit that certified nothing.

    Parameters
    ----------
    cause : ``rows`` (too few), ``representation`` (too weak) or ``teacher`` (too noisy)
    sentence : the verdict with its numbers, and what to do
    numbers : the figures behind the verdict
    """

    cause: Literal["rows", "representation", "teacher"]
    sentence: str
    numbers: dict[str, float]


@dataclass(frozen=True, slots=True)
class Certificate:
    """Certificate of one version: whether and where the surrogate may answer (gate.md, sections 1 to 3).

    Parameters
    ----------
    certified : whether the surrogate may answer
    reason : ``certified``, or why the gate abstained: ``insufficient`` (too few acceptable rows for any test),
        ``disagreement`` (the first test failed), ``recall`` (there, a protected label was lost too often),
        ``coverage`` (certified, but under the least coverage that is worth a
        deployment), ``ineligible`` (no row has a finite score and passes the guards)
    alpha : required teacher agreement
    delta : bound of the probability that this version is certified although its agreement is under alpha: what it
        spent of the task's delta. It does not bound the probability that a given certificate is wrong
    mode : ``strict`` or ``cross_fit``
    basis : what supports delta, see `Basis`
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
    attempt : which attempt to open the gate after an alarm this is, counted from 1; all of them share delta, and the
        j-th spends 6 delta / (pi^2 j^2). 0: no alarm had closed it
    pilot : rows that were spent on finding the start and entered nothing else
    outdated : rows that came before a drop in agreement and therefore only train; the newest ones calibrate
    groups : independent groups among the rows (see `CalibrationRows.groups`). The promise is about a random message
        with its repeats counted once: one random row of each group passes an exact test, and so do all rows
    largest_group : rows of the largest group
    effective_rows : Kish's effective number, (sum m)^2 / sum m^2 over the sizes m of the groups
    rivals : surrogates that competed on these rows: the walk was made at ``delta / rivals``, so that delta covers the
        luck of the one that won
    per_class : whether each predicted class has its own certificate, at delta each
    classes : a row per predicted class, worst lower bound first; over all fair rows, the pilot's too
    protected : the labels whose recall is promised beside the agreement, by the same delta
    recalls : a row per teacher label, lowest recall of the system first; over the same rows
    segments : each segment with its own threshold, in the order in which patterns are tried; empty: there are none
    class_floor : agreement that a predicted class must be shown to exceed before it may be handled; 0: no floor
    stages : what each stage contributes, in the order in which they are asked
    diagnosis : why nothing was certified; None if something was
    label_changes : what became of former labels, in words; rows with them are among the tested ones unless split
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
    basis: Basis = "empirical"
    walk: tuple[Step, ...] = ()
    coverage_unguarded: float = 0.0
    guarantee: str = "probability"
    spend: str = "per_version"
    index: int = 1
    attempt: int = 0
    pilot: int = 0
    outdated: int = 0
    groups: int = 0
    largest_group: int = 0
    effective_rows: float = 0.0
    rivals: int = 1
    per_class: bool = False
    classes: tuple[ClassRow, ...] = ()
    protected: tuple[ProtectedLabel, ...] = ()
    recalls: tuple[LabelRecall, ...] = ()
    segments: tuple[SegmentRow, ...] = ()
    class_floor: float = 0.0
    stages: tuple[StageRow, ...] = ()
    diagnosis: Diagnosis | None = None
    label_changes: tuple[str, ...] = ()

    @property
    def handled_share(self) -> float:
        """Share of the traffic that is handled: `coverage`, and 0 if that is not certified."""
        return self.coverage if self.certified else 0.0


CERTIFICATE = TypeAdapter(Certificate)
"""Certificate to JSON and back; infinite thresholds as strings, which JSON proper can hold."""
