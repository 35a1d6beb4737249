"""`server`: address, limits, and API keys with their rights."""

import os
import re
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from tracer_serve.config.base import Frozen

HASHED = re.compile(r"sha256:[0-9a-f]{64}")
"""A key's hash, which is safe to write into a file."""
ADMIN_KEY = "TRACER_SERVE_ADMIN_KEY"
"""The environment variable that holds an admin key, if `server.admin_key` is not set."""
_KEY_LENGTH = 16

Right = Literal["ask", "feedback", "admin"]
"""What a key may do: ask for labels, correct the answers that it was given, or operate the service."""


def _admin_key() -> SecretStr | None:
    """Return the admin key of the environment, which must satisfy the same rules as one in the YAML."""
    return SecretStr(os.environ[ADMIN_KEY]) if os.environ.get(ADMIN_KEY) else None


def require_hard_to_guess(key: SecretStr | None) -> SecretStr | None:
    """Return a key that is long enough.

    Raises
    ------
    ValueError
        It is too short. The message does not quote it.
    """
    if key is not None and len(key) < _KEY_LENGTH:
        raise ValueError(f"a key of fewer than {_KEY_LENGTH} characters can be guessed; openssl rand -hex 24 makes one")
    return key


class ApiKey(Frozen):
    """A key and its rights; a bare string is a key that may ask."""

    key: SecretStr = Field(description="${ENV}, or sha256:HEX of a key.")
    rights: tuple[Right, ...] = Field(
        default=("ask",),
        min_length=1,
        description="ask: labels, and pages that quote texts. feedback: correct answers that this key was given."
        " admin: /admin/*, and feedback on any answer.",
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_key(cls, value: Any) -> Any:
        return {"key": value} if isinstance(value, str | SecretStr) else value

    _long = field_validator("key")(require_hard_to_guess)


class ServerSpec(Frozen):
    """Where the service listens."""

    host: str = Field(default="127.0.0.1", description="Address to bind.")
    port: int = Field(default=3000, ge=1, le=65535, description="Port to bind.")
    workers: int = Field(default=1, ge=1, le=64, description="API worker processes.")
    max_body_mb: float = Field(default=4.0, gt=0, le=100, description="Maximum request body, MB.")
    max_batch: int = Field(default=1024, ge=1, description="Maximum number of texts in one request.")
    forward: bool = Field(
        default=True,
        description="Forward chat completions of no task, and any other POST under /v1/, to the teacher endpoint,"
        " at the operator's cost.",
    )
    sample_forwarded: int = Field(
        default=20,
        ge=0,
        le=1000,
        description="Number of kinds of forwarded calls that the dashboard describes (redacted) and counts; 0: none.",
    )
    api_keys: tuple[ApiKey, ...] = Field(
        default=(),
        description="Keys that may ask, each ${ENV} or sha256:HEX of a key, or {key, rights: [ask, feedback, admin]}."
        " Without any, every client that reaches the port may ask.",
    )
    admin_key: SecretStr | None = Field(
        default_factory=_admin_key,
        validate_default=True,
        description="A key with the right admin, ${ENV} or sha256:HEX; default: TRACER_SERVE_ADMIN_KEY. Without any"
        " such key, /admin/* is closed.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Host names under which a server without api_keys answers, besides localhost, IP addresses and"
        " server.host (against DNS rebinding).",
    )
    feedback: bool = Field(default=True, description="Whether POST /v1/feedback is open.")
    feedback_limit: int = Field(
        default=200, ge=1, description="Answers that one key may correct until the next version becomes current."
    )
    decision_cache: int = Field(
        default=10_000,
        ge=0,
        description="Texts per worker whose decision is cached; audits are still drawn.",
    )
    rate_limit: int | None = Field(
        default=None,
        ge=1,
        description="Requests a minute to /v1/* per key (without keys: per address), split among the workers.",
    )

    @field_validator("admin_key")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            return require_hard_to_guess(value)
        except ValueError as error:
            raise ValueError(f"{error} (server.admin_key or {ADMIN_KEY})") from None
