"""Parse a chat completion: its answer, or the reason why there is none."""

from typing import Any

from pydantic import BaseModel, Field, ValidationError

from tracer_serve.errors import TeacherError
from tracer_serve.infra.tracing import ResponseFacts


class _Function(BaseModel):
    arguments: str


class _Call(BaseModel):
    function: _Function


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None

    @property
    def said(self) -> str:
        """The arguments of the first tool that is called, else the content."""
        return self.tool_calls[0].function.arguments if self.tool_calls else self.content or ""


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


_COUNTS = ("prompt_tokens", "completion_tokens")
_MOST_TOKENS = 1_000_000_000  # a larger count is a server's mistake and would spoil every sum


class Completion(BaseModel):
    """The fields of a chat completion that are used; others are ignored."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None
    model: str | None = None

    @classmethod
    def read(cls, body: str, server: str) -> "Completion":
        """Parse a response's body.

        Raises
        ------
        TeacherError
            ``unavailable`` if the body is not one, such as a truncated body or a proxy's page.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise TeacherError(
                f"{server} answered 200, but not with a chat completion ({where or 'body'}: {first['msg']})",
                reason="unavailable",
            ) from None

    @property
    def tokens(self) -> dict[str, int]:
        """Return the valid token counts; malformed ones are dropped, because the answer was still paid for."""
        given = self.usage if isinstance(self.usage, dict) else {}
        return {
            name: int(n) for name in _COUNTS if isinstance(n := given.get(name), int | float) and 0 <= n <= _MOST_TOKENS
        }

    @property
    def outcome(self) -> ResponseFacts:
        """Return model, tokens and finish reason for the tracing span."""
        choice = self.choices[0]
        return ResponseFacts(self.model, self.tokens, choice.finish_reason, choice.message.said)

    @property
    def content(self) -> str:
        """Return the model's answer, or the arguments of the tool that it calls.

        Raises
        ------
        TeacherError
            ``rejected`` for a refusal or a content filter, ``unknown_label`` for an answer that was cut short or empty.
        """
        choice = self.choices[0]
        content = choice.message.said
        if choice.message.refusal or choice.finish_reason == "content_filter":
            refusal = choice.message.refusal or content
            raise TeacherError("the teacher refused to answer this text", reason="rejected", answer=refusal)
        if choice.finish_reason == "length":
            raise TeacherError(
                "the answer was cut at the token limit; a label needs few tokens, so check the prompt and the limit in"
                " `extra:`",
                reason="unknown_label",
                answer=content,
            )
        if not content.strip():
            raise TeacherError("the answer is empty", reason="unknown_label", answer=content)
        return content
