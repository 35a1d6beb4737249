"""`gate`: the certificate's promise about handled texts."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tracer_serve.config.base import Frozen, Share


class ScopeSpec(Frozen):
    """Guard against inputs unlike anything seen (gate.md, section 7)."""

    keep: float = Field(
        default=0.98,
        gt=0.5,
        le=1.0,
        description="Share of in-scope traffic that passes the guard (of a cascade: each guard); 1.0 turns it off.",
    )


class GateSpec(Frozen):
    """The promise: agreement, confidence and how they are certified."""

    alpha: float = Field(
        default=0.95, gt=0.0, lt=1.0, description="Required teacher agreement among the handled; 0.95 = 5 % disagree."
    )
    delta: float = Field(
        default=0.05, gt=0.0, lt=0.5, description="Probability that a version which does not keep alpha is certified."
    )
    mode: Literal["strict", "cross_fit"] = Field(
        default="cross_fit",
        description="strict: certify on the newest fifth, held out; delta is proved. cross_fit: certify on"
        " out-of-fold scores of all rows, then refit on all; more coverage, and delta is measured in"
        " simulations, not proved. Above 50,000 rows, and for surrogates that are not declared stable,"
        " always strict.",
    )
    families: tuple[Literal["global", "l2d", "cascade"], ...] = Field(
        default=("global", "l2d"),
        min_length=1,
        description="global: accept all texts or none. l2d: accept texts from a certified score threshold on. cascade:"
        " l2d, or a cheap surrogate and a stronger one for what the first defers, certified together.",
    )
    min_coverage: Share = Field(
        default=0.25,
        description="The gate abstains if the certified coverage is lower, a sign of a weak representation.",
    )
    spend: Literal["per_version", "series"] = Field(
        default="per_version",
        description="per_version: each version is wrong with probability at most delta. series: any of all versions is;"
        " the j-th spends 6 delta / (pi^2 j^2).",
    )
    class_floor: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Labels whose agreement is not shown to exceed this are deferred; alpha - 0.15 is sensible.",
    )
    per_class: bool = Field(
        default=False,
        description="Certify each predicted label separately; labels with too few rows are deferred.",
    )
    guarantee: Literal["probability", "overall"] = Field(
        default="probability",
        description="probability: agreement among handled texts is at least alpha, with probability 1 - delta. overall:"
        " on average over versions, at least alpha of all requests are deferred or agree (weaker).",
    )
    protect: dict[str, Annotated[float, Field(gt=0.0, lt=1.0)]] = Field(
        default={},
        description="Minimum recall per protected label: share of the requests with this teacher label that are"
        " deferred or answered so. Promised at the same delta as alpha.",
    )
    segments: dict[str, str] = Field(
        default={},
        description="Regular expression per kind of text; a text belongs to the first that matches. Each kind has"
        " its own certificate and threshold, and is deferred without enough rows.",
    )
    group_by: Literal["template", "duplicate"] = Field(
        default="template",
        description="Which rows without a named group count as one message. template: texts that differ in a few"
        " words, such as names and numbers. duplicate: only texts with the same words, for traffic made"
        " of few templates.",
    )
    scope: ScopeSpec = Field(default_factory=ScopeSpec, description="Guard against out-of-scope inputs.")

    @field_validator("segments")
    @classmethod
    def _are_patterns(cls, value: dict[str, str]) -> dict[str, str]:
        if "other" in value:
            raise ValueError("'other' is the segment of texts that match no pattern; use another name")
        for name, pattern in value.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"the pattern of {name!r} is no regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        if self.per_class and self.guarantee == "overall":
            raise ValueError("per_class needs guarantee: probability")
        if self.protect and (self.per_class or self.guarantee == "overall"):
            raise ValueError("protect needs per_class: false and guarantee: probability")
        if self.segments and (self.per_class or self.guarantee == "overall"):
            raise ValueError("segments need per_class: false and guarantee: probability")
        if "cascade" in self.families and (self.per_class or self.guarantee == "overall"):
            raise ValueError("the family cascade needs per_class: false and guarantee: probability")
        return self
