"""Base classes of the YAML's sections."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PER_FIELD = "per_field"
"""Name of the surrogate that answers in several fields."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Frozen(BaseModel):
    """Base of all parts of the spec."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Component(BaseModel):
    """A bare name, or ``{type: name, ...parameters}``; the registry checks the parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(min_length=1, description="Name of a built-in, a plugin or an entry point.")

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @property
    def params(self) -> dict[str, Any]:
        """Return all keys but ``type``."""
        return dict(self.model_extra or {})


class SurrogateComponent(Component):
    """A surrogate, optionally with an embedder of its own."""

    embedder: Component | None = Field(
        default=None, description="Its own embedder, for vectors, neighbours and scope guard; default: the task's."
    )

    @property
    def name(self) -> str:
        """Return its name, with the name of its own embedder if it has one."""
        name = self.type if self.type != PER_FIELD else f"{self.inner.type} per field"
        return name if self.embedder is None else f"{name} on {self.embedder.type}"

    @property
    def inner(self) -> Component:
        """Return the surrogate that is fitted: of one per field the surrogate of each field, else itself."""
        return Component.model_validate(self.params.get("of", "blend")) if self.type == PER_FIELD else self

    @property
    def per_field(self) -> Self:
        """Return the surrogate that fits this one for each field of an answer."""
        if self.type == PER_FIELD:
            return self
        return type(self)(type=PER_FIELD, embedder=self.embedder, of={"type": self.type, **self.params})  # type: ignore[call-arg]
