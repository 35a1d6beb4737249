"""The parts of requests that matter here, for the OpenAPI document; the rest travels as it came."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tracer_serve.server.http.request_body import Briefly


class _Part(BaseModel):
    type: str
    text: str | None = None


class Message(BaseModel):
    """One message of the conversation."""

    role: str
    content: str | Briefly[list[_Part]] | None = None

    @property
    def text(self) -> str | None:
        """What it says; None if it holds anything beside text."""
        if isinstance(self.content, str) or self.content is None:
            return self.content
        parts = [part.text for part in self.content if part.type == "text" and part.text is not None]
        return "\n".join(parts) if parts and len(parts) == len(self.content) else None


class Function(BaseModel):
    """A function that the model may call."""

    name: str
    parameters: dict[str, Any] = {}


class _Tool(BaseModel):
    type: str
    function: Function | None = None


class _JsonSchema(BaseModel):
    schema_: dict[str, Any] = Field(default={}, alias="schema")


class _Format(BaseModel):
    type: str
    json_schema: _JsonSchema | None = None


class _StreamOptions(BaseModel):
    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A chat completion request, as OpenAI's clients send it; fields that are not named here are let through."""

    model_config = ConfigDict(extra="allow", title="ChatRequest")

    model: str = Field(description="Name of the task, or of the teacher's model.")
    messages: Briefly[list[Message]] = Field(min_length=1, description="The conversation; the text is in the last one.")
    stream: bool | None = Field(default=None, description="Answer as server-sent events.")
    stream_options: _StreamOptions | None = None
    response_format: _Format | None = Field(default=None, description="text, json_object or json_schema.")
    tools: Briefly[list[_Tool]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: Briefly[list[Function]] | None = None
    function_call: str | dict[str, Any] | None = None
    n: int | None = Field(default=None, description="Only 1 is answered here.")
    logprobs: bool | None = None
    user: str | None = Field(default=None, description="Kept with the trace.")


class _TextConfig(BaseModel):
    format: dict[str, Any] | None = Field(default=None, description="text, json_object or json_schema.")


class ResponsesRequest(BaseModel):
    """A request of the Responses API, as OpenAI's clients send it; fields that are not named here are let through."""

    model_config = ConfigDict(extra="allow", title="ResponsesRequest")

    model: str = Field(description="Name of the task, or of the teacher's model.")
    input: str | list[dict[str, Any]] = Field(
        description="The text, or the conversation with the text in its last turn."
    )
    instructions: str | None = Field(default=None, description="The system message.")
    stream: bool | None = Field(default=None, description="Answer as server-sent events.")
    text: _TextConfig | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    user: str | None = Field(default=None, description="Kept with the trace.")


class MessagesRequest(BaseModel):
    """A request of the Messages API, as Anthropic's clients send it; fields that are not named here are let through."""

    model_config = ConfigDict(extra="allow", title="MessagesRequest")

    model: str = Field(description="Name of the task, or of the teacher's model.")
    messages: list[dict[str, Any]] = Field(min_length=1, description="The conversation; the text is in the last one.")
    max_tokens: int = Field(ge=1, description="Not part of the question.")
    system: str | list[dict[str, Any]] | None = Field(default=None, description="The system message.")
    stream: bool | None = Field(default=None, description="Answer as server-sent events.")
    output_config: dict[str, Any] | None = Field(default=None, description="With the format json_schema.")
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = Field(default=None, description="Its user_id is kept with the trace.")
