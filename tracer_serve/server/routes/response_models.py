"""The bodies of our answers, as OpenAPI describes them."""

from typing import Any

from pydantic import BaseModel, Field


class ErrorObject(BaseModel):
    """An error as OpenAI clients know it."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Body of every answer that is not 2xx."""

    error: ErrorObject


class TopLabel(BaseModel):
    """One of the most probable labels."""

    label: str
    prob: float


class ClassifyItem(BaseModel):
    """One text's answer, or its error."""

    index: int
    label: str | None = None
    num_classes: int | None = None
    decision: str | None = Field(default=None, description="handled (by the surrogate), deferred or degraded")
    reason: str | None = None
    score: float | None = None
    version: int | None = None
    trace_id: str | None = None
    probs: dict[str, float] | None = None
    top: list[TopLabel] | None = None
    error: ErrorObject | None = None


class Usage(BaseModel):
    """The teacher's tokens; zero for what was handled."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ClassifyResponse(BaseModel):
    """The answers, in the order of the texts."""

    id: str
    object: str
    created: int
    model: str
    data: list[ClassifyItem]
    usage: Usage


class ChatCompletion(BaseModel):
    """An answer as OpenAI clients know it."""

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage | None = None


class FeedbackResponse(BaseModel):
    """The label that stands now."""

    id: str
    object: str
    label: str
