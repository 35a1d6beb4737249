"""Decompress answers, and join the events of a stream into content and token counts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tracer_serve.storage.importers.extract import mapping
from tracer_serve.storage.importers.parse import tokens_of

_PIECE = 256  # bytes, of which zstd makes 8 MB at most
_MOST_DECODED = 1_000_000


@dataclass(frozen=True, slots=True)
class Answered:
    """Content of an answer (completion, response, or joined stream), and its tokens if the server counts them."""

    content: Any
    usage: Mapping[str, int]


def read_stream(body: bytes) -> Answered:
    r"""Join server-sent events of chat completions or of the Responses API.

    Raises
    ------
    ValueError
        If an event is not JSON.

    Examples
    --------
    >>> read_stream(b'data: {"choices": [{"delta": {"content": "y"}}]}\n\ndata: [DONE]\n\n').content
    'y'
    """
    said, usage = list[str](), dict[str, int]()
    for event in _events(body):
        whole = mapping(event.get("response"))
        if event.get("type") == "response.completed":
            return Answered(dict(whole), tokens_of(mapping(whole.get("usage"))))
        usage = tokens_of(mapping(event.get("usage"))) or usage
        for choice in _list(event.get("choices")):
            said += _pieces(mapping(mapping(choice).get("delta")))
    return Answered("".join(said) or None, usage)


def _pieces(delta: Mapping[str, Any]) -> Iterator[str]:
    calls = _list(delta.get("tool_calls")) or [{"function": delta.get("function_call")}]
    for piece in (delta.get("content"), *(mapping(mapping(call).get("function")).get("arguments") for call in calls)):
        if isinstance(piece, str):
            yield piece


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _events(body: bytes) -> Iterator[Mapping[str, Any]]:
    for line in body.splitlines():
        data = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and data != b"[DONE]":
            yield mapping(json.loads(data))


class _Pieces(httpx.SyncByteStream):
    """Iterator over a body in pieces so small that none expands to more than a few megabytes."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return (self._body[start : start + _PIECE] for start in range(0, len(self._body), _PIECE))


def decoded(body: bytes, coding: str) -> bytes:
    """Return a decompressed body.

    Raises
    ------
    ValueError
        If the encoding is not the declared one, or the body expands to more than any answer with a label.
    """
    found = bytearray()
    try:
        for part in httpx.Response(200, headers={"content-encoding": coding}, stream=_Pieces(body)).iter_bytes():
            found += part
            if len(found) > _MOST_DECODED:
                raise ValueError("the answer is too long to be observed")
    except httpx.DecodingError as error:
        raise ValueError("the answer's encoding is not the declared one") from error
    return bytes(found)
