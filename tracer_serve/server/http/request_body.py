"""Read request bodies: JSON only, with limits on size, memory and time."""

import asyncio
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from tracer_serve.errors import OverloadedError
from tracer_serve.server.http.errors import RefusalError

_PATIENCE_S = 30.0
_MOST_TOLD = 1_000  # validation errors of a body that are examined
MOST_IN_MEMORY = 256_000_000
"""Maximum number of bytes of all bodies that are being read."""

WHOLE = "tracer.whole"
"""Key in the scope of a request whose whole body arrived with its head; it is read without a timeout."""

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

Briefly = Annotated[T, Field(fail_fast=True)]
"""A list in a body; only its first invalid item is reported, since errors for a million items would take gigabytes."""


async def read_model(request: Request, model: type[M], limit: int) -> M:
    """Read and validate a JSON body of at most `limit` bytes.

    Raises
    ------
    RefusalError
        415 for another content type, 413 for a larger body, 408 for one that stalls, 400 for an invalid one.
    """
    body = await read_json(request, limit)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise explain(error, body) from None


async def read_json(request: Request, limit: int) -> bytes:
    """Read a body that is declared as JSON.

    Raises
    ------
    RefusalError
        415, 413 or 408, as above.
    """
    require_json(request)
    return await read_body(request, limit)


def require_json(request: Request) -> None:
    """Check that a body is declared as JSON.

    Raises
    ------
    RefusalError
        415 if the type is not JSON.
    """
    kind = header_of(request, b"content-type").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusalError(415, f"send JSON with the header content-type: application/json, not {kind or 'none'!r}")


def header_of(request: Request, name: bytes) -> str:
    """Return one header, "" if there is none; cheaper than `Request.headers`, which builds an object."""
    for key, value in request.scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return ""


async def read_body(request: Request, limit: int) -> bytes:
    """Read a body of any kind; refuse one that declares too many bytes before reading it.

    Raises
    ------
    RefusalError
        413 or 408, as above.
    """
    declared = header_of(request, b"content-length")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    if request.scope.get(WHOLE):
        body: bytes = (await request.receive()).get("body", b"")  # no body if the client has disconnected
        if len(body) > limit:
            raise _too_large(limit)
        return body
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_PATIENCE_S):
            async for part in request.stream():
                size += len(part)
                in_memory.bytes += len(part)
                if size > limit:
                    raise _too_large(limit)
                if in_memory.bytes > MOST_IN_MEMORY:
                    raise OverloadedError("too many request bodies are being read; retry later")
                parts.append(part)
    except TimeoutError:
        raise RefusalError(408, f"the body did not arrive within {_PATIENCE_S:.0f} s") from None
    except ClientDisconnect:  # otherwise each would log a traceback
        raise RefusalError(400, "the client left before the end of the body") from None
    finally:
        in_memory.bytes -= size
    return b"".join(parts)


class _InMemory:
    """Number of bytes of the bodies that this process is reading."""

    bytes = 0


in_memory = _InMemory()


def _too_large(limit: int) -> RefusalError:
    return RefusalError(413, f"the body is larger than {limit:,} bytes; split it, or raise server.max_body_mb")


def explain(error: ValidationError, body: bytes) -> RefusalError:
    """Describe the first validation error; of very many errors, their number."""
    if error.error_count() > _MOST_TOLD:
        return RefusalError(400, f"the body has {error.error_count():,} unknown or wrong fields")
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        try:
            body.decode()
            problem = f"is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
        except UnicodeDecodeError as undecodable:
            problem = f"is not UTF-8: byte {undecodable.start} cannot be read"
        return RefusalError(400, f"the body {problem}", code="invalid_json")
    field = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return RefusalError(400, f"unknown field {field!r}", code="unknown_field", param=field)
    if first["type"] == "missing":
        return RefusalError(400, f"{field!r} is required", code="missing_field", param=field)
    if field == "input":
        return RefusalError(
            400, "input has to be a text or a list of texts (or of pairs, with `input: pair`)", param=field
        )
    return RefusalError(400, f"{field or 'the body'}: {first['msg'][0].lower()}{first['msg'][1:]}", param=field or None)
