"""`forms`: prompts beside the teacher's own whose calls belong to the task."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from tracer_serve.config.base import Frozen

OWN = ("native", "teacher")
"""Names of the forms that every task has: direct calls, and the teacher's own prompt."""


class FormSpec(Frozen):
    """One form: a prompt, the model that callers ask, and the options they send."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Name of the form in reports and metrics.")
    prompt: str | None = Field(default=None, description="The callers' prompt, written as `teacher.prompt` is.")
    request: Path | None = Field(
        default=None,
        description="Instead of prompt: a JSON file with the body of one call, with `slot` in place of the text.",
    )
    slot: str = Field(default="{text}", min_length=1, description="Placeholder of the text in the file of request.")
    model: str | None = Field(
        default=None, description="The model that callers ask; default: the file's, else the teacher's."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Further fields of the callers' body, such as response_format."
    )
    same_as: str | None = Field(
        default=None,
        description="Form that asks the same question, or teacher: one certificate covers both; audits monitor each.",
    )
    when_handled: dict[str, Any] = Field(
        default_factory=dict,
        description="Values of fields beside the label in handled answers: score (0 to 1), percent (0 to 100),"
        " defer, or a constant.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.prompt is None) == (self.request is None):
            raise ValueError("needs either prompt or request")
        if self.request is not None and self.options:
            raise ValueError("options belong into the file of request")
        if self.name in OWN:
            raise ValueError(f"the name {self.name!r} is taken: every task has that form")
        return self
