"""`traces`: where traces come from, what is kept of them, and how many texts are audited."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from tracer_serve.config.base import Component, Frozen, Share


class TracesSpec(Frozen):
    """Where traces come from and go to."""

    import_: tuple[Path, ...] = Field(
        default=(),
        alias="import",
        description="JSONL or CSV files imported before each fit: a file once, and of one that grew the new lines.",
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
