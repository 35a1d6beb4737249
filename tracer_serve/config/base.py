"""What all sections of the YAML are made of."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Frozen(BaseModel):
    """Base of all parts of the spec."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Component(BaseModel):
    """A bare name, or ``{type: name, ...its own parameters}``; the registry knows the parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(min_length=1, description="Name of a built-in, a plugin or an entry point.")

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @property
    def params(self) -> dict[str, Any]:
        """Everything beside ``type``."""
        return dict(self.model_extra or {})


class SurrogateComponent(Component):
    """A surrogate; it may see texts through an embedder of its own."""

    embedder: Component | None = Field(
        default=None, description="Its own embedder, for vectors, neighbours and scope guard; default: the task's."
    )

    @property
    def name(self) -> str:
        """Its name, and its embedder's where that is its own."""
        return self.type if self.embedder is None else f"{self.type} on {self.embedder.type}"
