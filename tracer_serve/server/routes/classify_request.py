"""The body of ``POST /v1/classify``."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tracer_serve.server.http.request_body import Briefly


class ClassifyRequest(BaseModel):
    """One text or many to classify."""

    model_config = ConfigDict(extra="forbid", strict=True, title="ClassifyRequest")

    input: str | Briefly[list[str | Briefly[list[str]]]] = Field(
        description="One text or a list; where the task classifies pairs, one [first, second] or a list of those."
    )
    model: str | None = Field(default=None, description="Name of the task; may be left out.")
    user: Annotated[str, Field(max_length=256)] | None = Field(default=None, description="Kept with the trace.")
    probs: bool = Field(default=False, description="Return the surrogate's probabilities of handled texts.")
    top_k: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, description="Return the k most probable labels of handled texts."
    )
