"""The YAML of one task as frozen models: every field described and bounded, unknown keys refused."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

HASHED = re.compile(r"sha256:[0-9a-f]{64}")
"""A key's hash, which may stand in a file."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Frozen(BaseModel):
    """Base of all parts of the spec."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Component(BaseModel):
    """A bare name, or ``{type: name, ...its own parameters}``; the registry knows the parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(min_length=1, description="Name of a built-in, a plugin or an entry point.")

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @property
    def params(self) -> dict[str, Any]:
        """Everything beside ``type``."""
        return dict(self.model_extra or {})


class SurrogateComponent(Component):
    """A surrogate; it may see texts through an embedder of its own."""

    embedder: Component | None = Field(
        default=None, description="Its own embedder, for vectors, neighbours and scope guard; default: the task's."
    )

    @property
    def name(self) -> str:
        """Its name, and its embedder's where that is its own."""
        return self.type if self.embedder is None else f"{self.type} on {self.embedder.type}"


class ScopeSpec(Frozen):
    """Guard against inputs unlike anything seen (gate.md, section 7)."""

    keep: float = Field(
        default=0.98,
        gt=0.5,
        le=1.0,
        description="Share of in-scope traffic that passes the guard; 1.0 turns it off, for a closed task.",
    )


class GateSpec(Frozen):
    """What is promised, and how surely."""

    alpha: float = Field(
        default=0.95, gt=0.0, lt=1.0, description="Required teacher agreement among the handled; 0.95 = 5 % disagree."
    )
    delta: float = Field(default=0.05, gt=0.0, lt=0.5, description="Probability that a certificate is wrong.")
    mode: Literal["strict", "cross_fit"] = Field(
        default="cross_fit",
        description="strict: certificate on a held-out fifth, the theorem as stated. cross_fit: on out-of-fold"
        " scores of all rows; more coverage, within delta empirically.",
    )
    families: tuple[Literal["global", "l2d", "cascade"], ...] = Field(
        default=("global", "l2d"),
        min_length=1,
        description="global: accept everything or nothing. l2d: accept from a certified score on. cascade: l2d, or a"
        " cheap surrogate first and a stronger one for what it defers, certified as one.",
    )
    min_coverage: Share = Field(
        default=0.25,
        description="Under this certified coverage the gate abstains: not worth a version of its own, and a sign that"
        " the representation is too weak. The report says what could have been certified.",
    )
    spend: Literal["per_version", "series"] = Field(
        default="per_version",
        description="per_version: each version may be wrong with probability delta. series: all versions that there"
        " will ever be together; the j-th spends 6 delta / (pi^2 j^2).",
    )
    class_floor: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Labels whose agreement is not shown to exceed this are always deferred; alpha - 0.15 is sensible.",
    )
    per_class: bool = Field(
        default=False,
        description="A certificate for each predicted label; needs many rows per label, the others defer.",
    )
    guarantee: Literal["probability", "overall"] = Field(
        default="probability",
        description="probability: agreement among the handled is at least alpha, with probability 1 - delta. overall:"
        " on average over versions at least alpha of all requests are deferred or agree; weaker.",
    )
    scope: ScopeSpec = Field(default_factory=ScopeSpec, description="Guard against out-of-scope inputs.")

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        if self.per_class and self.guarantee == "overall":
            raise ValueError("per_class needs guarantee: probability")
        if "cascade" in self.families and (self.per_class or self.guarantee == "overall"):
            raise ValueError("the family cascade needs per_class: false and guarantee: probability")
        return self


class FitSpec(Frozen):
    """How candidates are fitted and compared."""

    folds: int = Field(default=10, ge=2, le=20, description="Folds of the cross-fit.")
    seed: int = Field(default=0, ge=0, description="Seed of folds and models.")
    budget_s: float = Field(
        default=1800.0, gt=0, description="Seconds after which no further candidate is started; cheap ones go first."
    )
    heavy_floor: Share = Field(
        default=0.1,
        description="A candidate that trains for minutes (encoder) is tried only where cheaper ones defer at least this"
        " share of traffic, or 2 % of it and no longer grow with the traces; 0.0: always.",
    )


class TracesSpec(Frozen):
    """Where traces come from and go to."""

    import_: tuple[Path, ...] = Field(
        default=(), alias="import", description="JSONL or CSV files imported before the first fit."
    )
    url: str | None = Field(
        default=None, description="SQLAlchemy URL of a shared store; default: SQLite in the state folder."
    )
    audit_rate: Share | Literal["auto"] = Field(
        default=0.03,
        description="Probability that a handled request is also sent to the teacher; auto aims at 100 audits a day.",
    )
    redact: tuple[Component, ...] = Field(
        default=(), description="What is taken out of a text before it is stored: [pii], or your own."
    )
    import_fair: bool = Field(
        default=True,
        description="Whether the imported files are a fair sample of traffic; if not, they train and never calibrate.",
    )
    migrate: Literal["fresh", "paired"] = Field(
        default="fresh",
        description="After a change of teacher: fresh waits for labels of new requests, paired asks about old texts.",
    )
    migrate_rows: int = Field(
        default=500, ge=1, description="How many old texts `paired` asks about, at the teacher's price."
    )
    audit_budget: int | None = Field(default=None, ge=0, description="Most audits a day (UTC), spread over it.")
    keep_unlabelled_days: float | None = Field(
        default=None,
        ge=1.0 / 24,
        description="Days after which rows go that nobody labelled, looked at hourly: handled and never audited nor"
        " corrected, or without an answer of the teacher. Their counts stay. Default: they stay.",
    )

    @property
    def audit_share(self) -> float:
        """The share of handled requests that is audited, for estimates; of `auto`, what it is at 100,000 a month."""
        return 0.03 if self.audit_rate == "auto" else self.audit_rate


class ScheduleSpec(Frozen):
    """When to refit and re-gate: beside these triggers, on the monitor's alarm, and by hand."""

    cron: str | None = Field(default=None, description="Five-field crontab line, such as '0 3 * * *'.")
    interval_s: float | None = Field(default=None, gt=0, description="Seconds between refits.")
    timezone: str = Field(default="UTC", description="IANA time zone of the cron line.")
    min_new_traces: int | None = Field(
        default=None, ge=1, description="Refit as soon as this many new labelled traces are in the store."
    )

    new_label: int | None = Field(
        default=5, ge=1, description="Refit as soon as a label unknown to the newest version was given this often."
    )
    limit_s: float = Field(default=21_600.0, gt=0, description="Seconds after which a refit is ended.")
    memory_mb: float | None = Field(
        default=None, ge=256, description="Memory a refit may allocate, MB; beyond, it fails and serving goes on."
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is not an IANA time zone such as 'Europe/Berlin'") from error
        return value

    @field_validator("cron")
    @classmethod
    def _valid_cron(cls, value: str | None) -> str | None:
        if value is not None:
            CronTrigger.from_crontab(value)  # raises ValueError with the reason
        return value


class VersionsSpec(Frozen):
    """Where versions are, and how many."""

    url: str | None = Field(
        default=None,
        min_length=1,
        description="Folder that machines share, or its URL (s3://, gs://, any fsspec knows), with a folder per task;"
        " default: in the state folder.",
    )
    keep: int = Field(default=20, ge=2, description="How many versions are kept; the current one always is.")
    must_keep_coverage: bool = Field(
        default=False, description="Whether a certified version replaces the current one only if it covers as much."
    )


class ComputeSpec(Frozen):
    """Which processes embed and fit candidates."""

    engine: Literal["local", "dask"] = Field(
        default="local",
        description="local: the refit's own process. dask: the workers of a Dask cluster, with the same result.",
    )
    address: str | None = Field(
        default=None, pattern=r"^\w+://\S+$", description="The cluster's scheduler, such as tcp://scheduler:8786."
    )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.engine == "dask" and self.address is None:
            raise ValueError("engine: dask needs the scheduler's address, such as tcp://scheduler:8786")
        return self


_KEY_LENGTH = 16


class ServerSpec(Frozen):
    """Where the service listens."""

    host: str = Field(default="127.0.0.1", description="Address to bind.")
    port: int = Field(default=3000, ge=1, le=65535, description="Port to bind.")
    workers: int = Field(default=1, ge=1, le=64, description="API worker processes.")
    max_body_mb: float = Field(default=4.0, gt=0, le=100, description="Largest accepted request body, MB.")
    max_batch: int = Field(default=1024, ge=1, description="Most texts in one request.")
    forward: bool = Field(
        default=True,
        description="Pass what is not this task's, chat completions and any other POST under /v1/, on to the teacher's"
        " endpoint, at the operator's cost.",
    )
    api_keys: tuple[SecretStr, ...] = Field(
        default=(),
        description="Keys that may ask, each ${ENV} or sha256:HEX of a key; none: whoever reaches the port may.",
    )
    admin_key: SecretStr | None = Field(
        default=None,
        description="Key of /admin/*, ${ENV} or sha256:HEX; default: TRACER_SERVE_ADMIN_KEY; without either closed.",
    )
    decision_cache: int = Field(
        default=10_000,
        ge=0,
        description="Texts of which each worker remembers what the version said; audits are drawn all the same.",
    )
    rate_limit: int | None = Field(
        default=None,
        ge=1,
        description="Requests a minute to /v1/* per key (without keys: per address), split among the workers.",
    )

    @field_validator("api_keys", "admin_key")
    @classmethod
    def _hard_to_guess(cls, value: tuple[SecretStr, ...] | SecretStr | None) -> Any:
        keys = value if isinstance(value, tuple) else (value,)
        if any(key is not None and len(key) < _KEY_LENGTH for key in keys):
            raise ValueError(
                f"a key of fewer than {_KEY_LENGTH} characters can be guessed; openssl rand -hex 24 makes one"
            )
        return value


class Spec(Frozen):
    """One classification task."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Name of the task: model name, metrics label, state folder."
    )
    labels: tuple[str, ...] | dict[str, str] | None = Field(
        default=None,
        description="Closed label set, or a map of label to description; without it, what the teacher has used.",
    )
    input: Literal["text", "pair"] = Field(default="text", description="One text, or a pair of texts.")
    plugins: tuple[Path, ...] = Field(default=(), description="Python files that register own components.")
    embedder: Component = Field(default=Component(type="ngrams"), description="Texts to vectors.")
    surrogates: tuple[SurrogateComponent, ...] = Field(
        default=(SurrogateComponent(type="blend"),), min_length=1, description="Candidate surrogates."
    )
    acceptors: tuple[Component, ...] = Field(
        default=(Component(type="logistic"),), min_length=1, description="Candidate acceptors."
    )
    gate: GateSpec = Field(default_factory=GateSpec, description="The promise.")
    fit: FitSpec = Field(default_factory=FitSpec, description="How to fit.")
    teacher: Component = Field(description="The endpoint whose labels are the reference.")
    traces: TracesSpec = Field(default_factory=TracesSpec, description="The trace store.")
    schedule: ScheduleSpec = Field(default_factory=ScheduleSpec, description="When to refit.")
    versions: VersionsSpec = Field(default_factory=VersionsSpec, description="Where versions are, and how many.")
    compute: ComputeSpec = Field(default_factory=ComputeSpec, description="Where to fit.")
    state: Path | None = Field(
        default=None,
        description="Folder of store, versions and caches, relative to the working folder; default .tracer/NAME.",
    )
    mode: Literal["observe", "canary", "enforce"] = Field(
        default="enforce",
        description="observe: the teacher answers everything, the surrogate is scored in shadow. canary: certified"
        " answers for a share of the users. enforce: for all.",
    )
    canary: Share = Field(
        default=0.1, description="Share of the users in mode canary, by a hash of `user`; without one, of requests."
    )
    on_teacher_down: Literal["error", "degraded"] = Field(
        default="error",
        description="error: 503 for what is not certified. degraded: the surrogate answers, uncertified and marked so.",
    )
    server: ServerSpec = Field(default_factory=ServerSpec, description="Where to listen.")

    @field_validator("labels")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | dict[str, str] | None) -> tuple[str, ...] | dict[str, str] | None:
        if value is None:
            return None
        if len(value) < 1 or any(not label.strip() for label in value):
            raise ValueError("needs at least one label, none of them empty")
        if len(set(value)) < len(value):
            twice = next(label for label in value if list(value).count(label) > 1)
            raise ValueError(f"label {twice!r} is there twice")
        return value

    @property
    def embedders(self) -> tuple[Component, ...]:
        """The task's embedder, then those that surrogates name beside it, each once."""
        found = [self.embedder]
        for surrogate in self.surrogates:
            if surrogate.embedder is not None and surrogate.embedder not in found:
                found.append(surrogate.embedder)
        return tuple(found)

    def view_of(self, surrogate: int) -> int:
        """Return the place in `embedders` of what the `surrogate`-th surrogate sees through."""
        own = self.surrogates[surrogate].embedder
        return 0 if own is None else self.embedders.index(own)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The closed label set, empty where the task is open."""
        return tuple(self.labels or ())
