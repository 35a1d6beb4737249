"""A chat completion's JSON to the answer in it, or to the reason there is none."""

from typing import Any

from pydantic import BaseModel, Field, ValidationError

from tracer_serve.errors import TeacherError
from tracer_serve.infra.tracing import ResponseFacts


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


_COUNTS = ("prompt_tokens", "completion_tokens")
_MOST_TOKENS = 1_000_000_000  # in one answer; more are a server's mistake, and would spoil every sum


class Completion(BaseModel):
    """The part of a chat completion that matters here; whatever else a server sends is left alone."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None
    model: str | None = None

    @classmethod
    def read(cls, body: str, server: str) -> "Completion":
        """Parse a response's body.

        Raises
        ------
        TeacherError
            ``unavailable`` where it is something else: cut, or a proxy's page.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise TeacherError(
                f"{server} answered 200 with something that is no chat completion ({where or 'body'}: {first['msg']})",
                reason="unavailable",
            ) from None

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens used, as far as the server counts them: an answer was paid for, whatever its counts look like."""
        given = self.usage if isinstance(self.usage, dict) else {}
        return {
            name: int(n) for name in _COUNTS if isinstance(n := given.get(name), int | float) and 0 <= n <= _MOST_TOKENS
        }

    @property
    def outcome(self) -> ResponseFacts:
        """What it says about itself, for a span."""
        choice = self.choices[0]
        return ResponseFacts(self.model, self.tokens, choice.finish_reason, choice.message.content)

    @property
    def content(self) -> str:
        """What the model answered.

        Raises
        ------
        TeacherError
            ``rejected`` for a refusal or a content filter, ``unknown_label`` for an answer that was cut short or empty.
        """
        choice = self.choices[0]
        said = choice.message.content or ""
        if choice.message.refusal or choice.finish_reason == "content_filter":
            refusal = choice.message.refusal or said
            raise TeacherError("the teacher refused to answer this text", reason="rejected", answer=refusal)
        if choice.finish_reason == "length":
            raise TeacherError(
                "the answer hit the token limit before its end; a label needs few tokens, so check the prompt and the"
                " limit in `extra:`",
                reason="unknown_label",
                answer=said,
            )
        if not said.strip():
            raise TeacherError("the answer is empty", reason="unknown_label", answer=said)
        return said
