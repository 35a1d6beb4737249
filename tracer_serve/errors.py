"""The errors a user may meet; each knows its exit code and its HTTP status.

A message names the culprit, the likely cause and, where there is one, the next command to type.
"""

from pathlib import Path
from typing import ClassVar

TEACHER_REASONS = (
    "timeout", "rate_limited", "unavailable", "rejected", "unknown_label", "circuit_open", "overloaded",
    "budget_reached",
)  # fmt: skip
"""Why a teacher gave no usable label: bounded words for metrics."""

BUDGET_REACHED = "budget_reached"
"""Of `TEACHER_REASONS` the one of `BudgetError`."""


class TracerServeError(Exception):
    """Base of every error that tracer-serve raises on purpose."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"


class SpecError(TracerServeError):
    """The YAML of a task is wrong.

    Parameters
    ----------
    problem : what is wrong and what is allowed
    file : the YAML file, where it is known
    path : dotted path of the field, such as ``gate.alpha``
    """

    code = "spec_error"

    def __init__(self, problem: str, *, file: Path | str | None = None, path: str = "") -> None:
        self.problem, self.file, self.path = problem, file, path
        super().__init__(": ".join(str(part) for part in (file, path, problem) if part))


class PluginError(TracerServeError):
    """A component is not registered, does not take its parameters, or breaks the contract."""

    code = "plugin_error"


class StoreError(TracerServeError):
    """The trace store cannot be opened, read or written."""

    http_status = 503
    code = "store_unavailable"


class ImportFileError(TracerServeError):
    """A file of traces cannot be read; names file and line."""

    code = "import_error"


class ArtifactError(TracerServeError):
    """A version's folder is missing, corrupt, or does not fit the running spec."""

    code = "artifact_error"


class EndpointError(TracerServeError):
    """A remote HTTP API gave no usable answer.

    Parameters
    ----------
    problem : what happened
    reason : one of `TEACHER_REASONS`
    retry_after_s : seconds after which asking again may help

    Attributes
    ----------
    status : HTTP status of the answer; None if there was none
    """

    http_status = 503

    def __init__(self, problem: str, *, reason: str, retry_after_s: float | None = None) -> None:
        self.reason, self.retry_after_s = reason, retry_after_s
        self.status: int | None = None
        super().__init__(problem)


class EmbedderError(EndpointError):
    """A remote embedder returned no vectors."""

    code = "embedder_unavailable"


class FitError(TracerServeError):
    """The traces do not allow a fit (too few, one label, nothing labelled)."""

    code = "fit_error"


class BusyError(TracerServeError):
    """Another process holds what is needed: a port, a lease, a running refit."""

    http_status = 409
    code = "busy"


class BadInputError(TracerServeError):
    """A request that fails on every retry."""

    http_status = 400
    code = "invalid_request"


class OverloadedError(TracerServeError):
    """More is waiting for an answer than can be answered soon."""

    http_status = 503
    code = "overloaded"


class TeacherError(EndpointError):
    """The teacher gave no usable label.

    Parameters
    ----------
    answer : the raw answer, if there was one
    """

    code = "teacher_unavailable"

    def __init__(
        self, problem: str, *, reason: str, retry_after_s: float | None = None, answer: str | None = None
    ) -> None:
        self.answer = answer
        super().__init__(problem, reason=reason, retry_after_s=retry_after_s)


class BudgetError(TeacherError):
    """The teacher may not be asked: what it may cost a day is spent."""

    http_status = 429
    code = "teacher_budget_reached"

    def __init__(self, problem: str, *, retry_after_s: float) -> None:
        super().__init__(problem, reason=BUDGET_REACHED, retry_after_s=retry_after_s)
