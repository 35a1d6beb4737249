"""How one provider's API is called: path, headers, key, and how its answers are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from tracer_serve.components.teachers._completion import Completion
from tracer_serve.components.teachers._message import read_message

_VERSION = "2023-06-01"  # of Anthropic's API


@dataclass(frozen=True, slots=True)
class Dialect:
    """One provider's API.

    Parameters
    ----------
    protocol : ``openai`` or ``anthropic``: whose calls its endpoints take
    provider : as OpenTelemetry's conventions name it
    path : of a call, below the endpoint's root
    key_header : carries the key; None: ``Authorization: Bearer``
    headers : of every request, no secrets
    read : reads the body of an answer, given the server's name for errors
    """

    protocol: str
    provider: str
    path: str
    read: Callable[[str, str], Completion]
    key_header: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def keyed(self, key: SecretStr | None, headers: Mapping[str, SecretStr]) -> dict[str, SecretStr]:
        """Return the secret headers, the key among them where it is no bearer token."""
        return {**headers} if key is None or self.key_header is None else {self.key_header: key, **headers}


OPENAI = Dialect("openai", "openai", "chat/completions", Completion.read)
AZURE = Dialect("openai", "azure.ai.openai", "chat/completions", Completion.read, "api-key")
ANTHROPIC = Dialect(
    "anthropic", "anthropic", "messages", read_message, "x-api-key", headers={"anthropic-version": _VERSION}
)
