"""`fit`: how candidates are fitted and compared."""

from pydantic import Field

from tracer_serve.config.base import Frozen, Share


class FitSpec(Frozen):
    """How candidates are fitted and compared."""

    folds: int = Field(default=10, ge=2, le=20, description="Folds of the cross-fit.")
    seed: int = Field(default=0, ge=0, description="Seed of folds and models.")
    budget_s: float = Field(
        default=1800.0, gt=0, description="Seconds after which no further candidate is started; cheap ones run first."
    )
    max_traces: int = Field(
        default=1_000_000,
        ge=100,
        description="Maximum number of labelled traces in a refit: the newest served ones, then a random sample of"
        " imported ones, plus the newest 20 of each rare label for training.",
    )
    heavy_floor: Share = Field(
        default=0.1,
        description="A slow candidate (encoder) is tried only if cheaper ones defer at least this share of traffic, or"
        " at least 2 % and no longer improve with more traces; 0.0: always.",
    )
