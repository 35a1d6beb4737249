"""A chat completion's JSON to the answer in it, or to the reason there is none."""

from pydantic import BaseModel, Field, ValidationError

from tracer_serve.errors import TeacherError
from tracer_serve.telemetry import Outcome


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)


class Completion(BaseModel):
    """The part of a chat completion that matters here; whatever else a server sends is left alone."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
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
        """Tokens used; empty where the server counts none."""
        return self.usage.model_dump() if self.usage else {}

    @property
    def outcome(self) -> Outcome:
        """What it says about itself, for a span."""
        choice = self.choices[0]
        return Outcome(self.model, self.tokens, choice.finish_reason, choice.message.content)

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
