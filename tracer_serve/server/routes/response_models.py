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
    fields: dict[str, Any] | None = Field(default=None, description="The answer of a task with fields, as an object.")
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


class ResponsesAnswer(BaseModel):
    """An answer as clients of the Responses API know it."""

    id: str
    object: str
    created_at: int
    model: str
    status: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None = None


class MessagesAnswer(BaseModel):
    """An answer as Anthropic's clients know it."""

    id: str
    type: str
    role: str
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    usage: dict[str, Any]


class MessagesError(BaseModel):
    """An error as Anthropic's clients know it."""

    type: str
    error: dict[str, Any]
    request_id: str | None = None


class FeedbackResponse(BaseModel):
    """The current label."""

    id: str
    object: str
    label: str
