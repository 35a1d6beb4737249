"""`compute`: which processes embed and fit."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tracer_serve.config.base import Frozen


class ComputeSpec(Frozen):
    """Which processes embed and fit candidates."""

    engine: Literal["local", "dask"] = Field(
        default="local",
        description="local: the refit's own process. dask: the workers of a Dask cluster, with the same result.",
    )
    address: str | None = Field(
        default=None, pattern=r"^\w+://\S+$", description="The cluster's scheduler, such as tcp://scheduler:8786."
    )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.engine == "dask" and self.address is None:
            raise ValueError("engine: dask needs the scheduler's address, such as tcp://scheduler:8786")
        return self
