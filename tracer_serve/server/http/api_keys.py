"""API keys: what the server keeps of them are hashes, and comparing takes the same time whatever is presented."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

from pydantic import SecretStr

from tracer_serve.config.server import HASHED


class Keys:
    """A set of keys.

    Parameters
    ----------
    given : each a key, or ``sha256:`` and the hash of one in hex

    Examples
    --------
    >>> keys = Keys([SecretStr("correct-horse-battery")])
    >>> keys.owner("Bearer correct-horse-battery") is not None, keys.owner("Bearer other")
    (True, None)
    """

    def __init__(self, given: Iterable[SecretStr]) -> None:
        self._digests = [_digest(key.get_secret_value()) for key in given]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, authorization: str) -> str | None:
        """Return a name for whose key a header presents: eight digits of its hash; None where it is nobody's.

        Parameters
        ----------
        authorization : the header: ``Bearer KEY``, or ``Basic`` with the key as password, which browsers ask for
        """
        key = _presented(authorization)
        if not key:
            return None
        presented = hashlib.sha256(key).digest()
        found = None
        for digest in self._digests:  # all of them, so that the time does not tell which came close
            if hmac.compare_digest(digest, presented):
                found = digest.hex()[:8]
        return found


def _digest(key: str) -> bytes:
    return (
        bytes.fromhex(key.removeprefix("sha256:")) if HASHED.fullmatch(key) else hashlib.sha256(key.encode()).digest()
    )


def _presented(authorization: str) -> bytes:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip(" \t").encode("latin-1", "replace")  # the bytes that came: headers are read as Latin-1
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
