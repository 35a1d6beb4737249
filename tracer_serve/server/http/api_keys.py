"""API keys: the server stores only their hashes, and compares them in constant time."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from tracer_serve.config.server import HASHED, ApiKey, Right, ServerSpec


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a known key.

    Parameters
    ----------
    key_id : eight hex digits of the key's sha256
    rights : what the key may do
    """

    key_id: str
    rights: frozenset[Right]


class Keys:
    """A set of keys with their rights.

    Parameters
    ----------
    given : keys, each in clear or as ``sha256:`` and its hash in hex

    Examples
    --------
    >>> from pydantic import SecretStr
    >>> keys = Keys([ApiKey(key=SecretStr("correct-horse-battery"))])
    >>> keys.caller("Bearer correct-horse-battery").rights, keys.caller("Bearer other")
    (frozenset({'ask'}), None)
    """

    def __init__(self, given: Iterable[ApiKey]) -> None:
        self._rights: dict[bytes, frozenset[Right]] = {}
        for key in given:  # a key that is listed twice has the rights of both entries
            digest = _digest(key.key.get_secret_value())
            self._rights[digest] = self._rights.get(digest, frozenset()) | frozenset(key.rights)

    @classmethod
    def of(cls, server: ServerSpec) -> Self:
        """Return all keys of a server, the admin key included."""
        admin = () if server.admin_key is None else (ApiKey(key=server.admin_key, rights=("admin",)),)
        return cls((*server.api_keys, *admin))

    def may_anybody(self, right: Right) -> bool:
        """Return whether any key has this right."""
        return any(right in rights for rights in self._rights.values())

    def caller(self, authorization: str) -> Caller | None:
        """Return the caller whose key a header presents; None if the key is unknown or missing.

        Parameters
        ----------
        authorization : the header: ``Bearer KEY``, or ``Basic`` with the key as password, as browsers send it
        """
        key = _presented(authorization)
        if not key:
            return None
        presented = hashlib.sha256(key).digest()
        found = None
        for digest, rights in self._rights.items():  # compare with all keys, so that the time reveals nothing
            if hmac.compare_digest(digest, presented):
                found = Caller(digest.hex()[:8], rights)
        return found


def presented_key(headers: Mapping[str, str]) -> str:
    """Return the header with a caller's key, ``""`` if there is none; ``x-api-key`` counts as a bearer token.

    Parameters
    ----------
    headers : headers with case-insensitive or lower-case names
    """
    key = headers.get("x-api-key")
    return headers.get("authorization") or (f"Bearer {key}" if key else "")


def _digest(key: str) -> bytes:
    return (
        bytes.fromhex(key.removeprefix("sha256:")) if HASHED.fullmatch(key) else hashlib.sha256(key.encode()).digest()
    )


def _presented(authorization: str) -> bytes:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip(" \t").encode("latin-1", "replace")  # the bytes on the wire: headers are read as Latin-1
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
