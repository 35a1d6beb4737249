"""`traces`: sources, storage, redaction and audits of traces."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tracer_serve.config.base import Component, Frozen, Share


class TracesSpec(Frozen):
    """Sources and storage of traces, and how many texts are audited."""

    import_: tuple[Path, ...] = Field(
        default=(),
        alias="import",
        description="JSONL or CSV files imported before each fit; of a file imported before, only the new lines.",
    )
    url: str | None = Field(
        default=None, description="SQLAlchemy URL of a shared store; default: SQLite in the state folder."
    )
    audit_rate: Share | Literal["auto"] = Field(
        default=0.03,
        description="Probability that a handled request is also sent to the teacher. auto: the square root of the"
        " handled requests a day, at least 10 and at most a fifth of them; 0 turns audits off.",
    )
    redact: tuple[Component, ...] = Field(
        default=(), description="Redactors applied to a text before it is stored: [pii], or your own."
    )
    import_fair: bool = Field(
        default=True,
        description="Whether imported files are a representative sample of traffic; else they only train.",
    )
    migrate: Literal["fresh", "paired"] = Field(
        default="fresh",
        description="After a change of teacher: fresh waits for labels of new requests, paired relabels old texts.",
    )
    migrate_rows: int = Field(
        default=500, ge=1, description="Number of old texts that `paired` relabels, at the teacher's price."
    )
    migrate_via: Literal["calls", "batch"] = Field(
        default="calls",
        description="How `paired` asks: calls at once, or the provider's batch API at half the price, within a day.",
    )
    audit_via: Literal["calls", "batch"] = Field(
        default="calls",
        description="How direct requests are audited: by calls at once, or hourly by the provider's batch API at half"
        " the price, so that the monitor learns of a drop in agreement up to a day later.",
    )
    audit_budget: int | None = Field(
        default=None, ge=0, description="Maximum number of audits per day (UTC), spread over the day."
    )
    keep_unlabelled_days: float | None = Field(
        default=None,
        ge=1.0 / 24,
        description="Days after which rows without a label are removed, hourly; their counts stay. Default: never.",
    )

    @model_validator(mode="after")
    def _whole_texts(self) -> Self:
        if self.audit_via == "batch" and self.redact:
            raise ValueError("audit_via: batch asks about the stored text, which redact changes; use audit_via: calls")
        return self

    @property
    def audit_share(self) -> float:
        """Return the audited share of handled requests; for `auto`, an estimate at 100,000 requests a month."""
        return 0.03 if self.audit_rate == "auto" else self.audit_rate
