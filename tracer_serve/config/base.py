"""Base classes of the YAML's sections."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
        return self.type if self.embedder is None else f"{self.type} on {self.embedder.type}"
