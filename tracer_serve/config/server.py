"""`server`: address, limits and API keys."""

import re
from typing import Any

from pydantic import Field, SecretStr, field_validator

from tracer_serve.config.base import Frozen

HASHED = re.compile(r"sha256:[0-9a-f]{64}")
"""A key's hash, which is safe to write into a file."""
_KEY_LENGTH = 16


class ServerSpec(Frozen):
    """Where the service listens."""

    host: str = Field(default="127.0.0.1", description="Address to bind.")
    port: int = Field(default=3000, ge=1, le=65535, description="Port to bind.")
    workers: int = Field(default=1, ge=1, le=64, description="API worker processes.")
    max_body_mb: float = Field(default=4.0, gt=0, le=100, description="Largest accepted request body, MB.")
    max_batch: int = Field(default=1024, ge=1, description="Most texts in one request.")
    forward: bool = Field(
        default=True,
        description="Pass what is not this task's, chat completions and any other POST under /v1/, on to the teacher's"
        " endpoint, at the operator's cost.",
    )
    api_keys: tuple[SecretStr, ...] = Field(
        default=(),
        description="Keys that may ask, each ${ENV} or sha256:HEX of a key; none: whoever reaches the port may.",
    )
    admin_key: SecretStr | None = Field(
        default=None,
        description="Key of /admin/*, ${ENV} or sha256:HEX; default: TRACER_SERVE_ADMIN_KEY; without either closed.",
    )
    decision_cache: int = Field(
        default=10_000,
        ge=0,
        description="Texts of which each worker remembers what the version said; audits are drawn all the same.",
    )
    rate_limit: int | None = Field(
        default=None,
        ge=1,
        description="Requests a minute to /v1/* per key (without keys: per address), split among the workers.",
    )

    @field_validator("api_keys", "admin_key")
    @classmethod
    def _hard_to_guess(cls, value: tuple[SecretStr, ...] | SecretStr | None) -> Any:
        keys = value if isinstance(value, tuple) else (value,)
        if any(key is not None and len(key) < _KEY_LENGTH for key in keys):
            raise ValueError(
                f"a key of fewer than {_KEY_LENGTH} characters can be guessed; openssl rand -hex 24 makes one"
            )
        return value
