"""The nested parts of a teacher's YAML block."""

from collections.abc import Mapping
from datetime import date
from typing import Literal

from pydantic import Field, SecretStr

from tracer_serve.config.base import Frozen

_API_VERSION = r"^[A-Za-z0-9.-]+$"


class Price(Frozen):
    """Price of the teacher's tokens, as published by its provider."""

    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 code.")
    prompt_per_1m: float = Field(ge=0, description="Money per million prompt tokens.")
    completion_per_1m: float = Field(ge=0, description="Money per million completion tokens.")
    as_of: date | None = Field(default=None, description="The day the price was looked up.")

    def of(self, usage: Mapping[str, int]) -> float:
        """Return the cost of ``prompt_tokens`` and ``completion_tokens``, in the currency.

        Examples
        --------
        >>> Price(prompt_per_1m=0.5, completion_per_1m=2.0).of({"prompt_tokens": 200, "completion_tokens": 50})
        0.0002
        """
        prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        return (prompt * self.prompt_per_1m + completion * self.completion_per_1m) / 1e6


class Budget(Frozen):
    """Most that the teacher may cost, by all processes of the task together.

    Answers that state their tokens count. A batch counts as well, but once it is submitted it is not cut.
    """

    per_day: float = Field(gt=0, description="Money per day (UTC), in the currency of the price.")
    when_reached: Literal["error", "degraded"] = Field(
        default="error",
        description="error: 429 with Retry-After until midnight UTC. degraded: the surrogate answers, uncertified and"
        " marked so.",
    )


class Fallback(Frozen):
    """Another endpoint of the same teacher, called when the ones before it fail."""

    base_url: str = Field(description="Root of its API, such as https://host/v1.")
    model: str | None = Field(default=None, description="The model's name at this endpoint; default: the same.")
    api_key: SecretStr | None = Field(
        default=None, description="Its own key, only as ${ENV}; the first endpoint's key is not sent."
    )
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Further request headers.")
    api_version: str | None = Field(
        default=None, pattern=_API_VERSION, description="Of an Azure OpenAI endpoint: base_url is the resource's root."
    )


class BreakerParams(Frozen):
    """When an endpoint counts as down."""

    failures: int = Field(
        default=8, ge=1, description="Timeouts, broken connections or 5xx in a row that open the breaker."
    )
    open_s: float = Field(default=10.0, gt=0, description="Seconds until one request probes the endpoint again.")


class CacheParams(Frozen):
    """Cache of answers by exact text; used only at temperature 0, not for audits, not while the gate is closed."""

    size: int = Field(default=10_000, ge=0, description="Maximum number of answers; 0 turns the cache off.")
    ttl_s: float = Field(default=3600.0, gt=0, description="Seconds an answer is kept.")
