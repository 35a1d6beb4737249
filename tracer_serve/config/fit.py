"""`fit`: how candidates are fitted and compared."""

from pydantic import Field

from tracer_serve.config.base import Frozen, Share


class FitSpec(Frozen):
    """How candidates are fitted and compared."""

    folds: int = Field(default=10, ge=2, le=20, description="Folds of the cross-fit.")
    seed: int = Field(default=0, ge=0, description="Seed of folds and models.")
    budget_s: float = Field(
        default=1800.0, gt=0, description="Seconds after which no further candidate is started; cheap ones go first."
    )
    max_traces: int = Field(
        default=1_000_000,
        ge=100,
        description="Most labelled traces that a refit works on: the newest that were served, then a random part of the"
        " imported ones. Of a label that is rare among them its newest 20 train as well.",
    )
    heavy_floor: Share = Field(
        default=0.1,
        description="A candidate that trains for minutes (encoder) is tried only where cheaper ones defer at least this"
        " share of traffic, or 2 % of it and no longer grow with the traces; 0.0: always.",
    )
