"""``POST /v1/feedback``: a person's word on an answer."""

import hashlib
import time
from typing import Annotated, Any
from uuid import UUID

import anyio
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.request_body import read_model
from tracer_serve.server.routes.classify import require_name
from tracer_serve.serving.runtime import Runtime
from tracer_serve.storage.traces import TraceStore

KEYS = "feedback.keys"
"""The value in the store that holds the latest idempotency keys."""

_REMEMBERED = 500
_PREFIXES = ("chatcmpl-", "classify-")
_TRIES, _PAUSE_S = 4, 0.1  # the row of a handled text is written a moment after its answer


class FeedbackRequest(BaseModel):
    """A correct label."""

    model_config = ConfigDict(extra="forbid", strict=True, title="FeedbackRequest")

    id: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="trace_id of an item, x-tracer-trace-id, or the id of a chat completion."
    )
    label: Annotated[str, Field(min_length=1, max_length=100)] = Field(description="What is right.")
    model: str | None = Field(default=None, description="Name of the task; may be left out where there is but one.")


async def feedback(request: Request) -> Response:
    """Put a person's label on the row of an answer; it stands against every later one but a person's."""
    runtime = runtime_of(request)
    given = await read_model(request, FeedbackRequest, runtime.max_body)
    require_name(given.model, runtime)
    trace_id = _trace_id(given.id)
    allowed = runtime.task.spec.label_names
    if (allowed and given.label not in allowed) or not given.label.strip() or not given.label.isprintable():
        raise RefusalError(400, f"this is none of the labels of {runtime.task.spec.name!r}", param="label")
    key = request.headers.get("idempotency-key")
    if key is not None and await run_in_threadpool(_seen, runtime.store, key, given):
        return _done(trace_id, given.label)
    await _write(runtime, trace_id, given.label)
    if key is not None:
        await run_in_threadpool(_remember, runtime.store, key, given)
    return _done(trace_id, given.label)


def _done(trace_id: str, label: str) -> Response:
    return JSONResponse({"id": trace_id, "object": "feedback", "label": label})


def _trace_id(given: str) -> str:
    bare = next((given.removeprefix(prefix) for prefix in _PREFIXES if given.startswith(prefix)), given)
    try:
        return str(UUID(bare))
    except ValueError:
        raise _unknown() from None


async def _write(runtime: Runtime, trace_id: str, label: str) -> None:
    for attempt in range(_TRIES):
        if await run_in_threadpool(runtime.store.traces.set_label, trace_id, label, "human"):
            return
        if attempt + 1 < _TRIES:
            await anyio.sleep(_PAUSE_S)
    raise _unknown()


def _unknown() -> RefusalError:
    return RefusalError(404, "there is no answer with this id", code="not_found", param="id")


def _seen(store: TraceStore, key: str, given: FeedbackRequest) -> bool:
    """Return whether this very request was done before.

    Raises
    ------
    RefusalError
        Where the key came with another body.
    """
    before = (store.values.get(KEYS) or {}).get(_digest(key))
    if before is not None and before["body"] != _digest(given.model_dump_json()):
        raise RefusalError(
            409, "this Idempotency-Key came with another body before", code="idempotency_key_reused", param=None
        )
    return before is not None


def _remember(store: TraceStore, key: str, given: FeedbackRequest) -> None:
    entry = {"body": _digest(given.model_dump_json()), "at": time.time()}

    def added(known: Any) -> dict[str, Any]:
        latest = sorted((known or {}).items(), key=lambda item: item[1]["at"])[1 - _REMEMBERED :]
        return dict(latest) | {_digest(key): entry}

    store.values.update(KEYS, added)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
