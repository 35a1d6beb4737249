"""``POST /v1/feedback``: correct the label of an answer.

A key may correct only its own answers, and a limited number per version. What it says trains, and never
calibrates: see `lifecycle.training_set`.
"""

import hashlib
import json
import time
from typing import Annotated, Any
from uuid import UUID

import anyio
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tracer_serve.config.task import Spec
from tracer_serve.infra.caller import KEY_ID
from tracer_serve.server.http.auth import ADMIN
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.request_body import read_model
from tracer_serve.server.routes.classify import require_name
from tracer_serve.serving.runtime import Runtime
from tracer_serve.storage.traces import TraceStore
from tracer_serve.types import Trace

KEYS = "feedback.keys"
"""Key in the store: the latest idempotency keys."""

COUNTS = "feedback.counts"
"""Key in the store: how many answers each key has corrected since the current version became current."""

_REMEMBERED = 500
_PREFIXES = ("chatcmpl-", "resp_", "msg_", "classify-")
_TRIES, _PAUSE_S = 4, 0.1  # the row of a handled text is written shortly after its answer


class FeedbackRequest(BaseModel):
    """A correct label."""

    model_config = ConfigDict(extra="forbid", strict=True, title="FeedbackRequest")

    id: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="trace_id of an item, x-tracer-trace-id, or the id of an answer of a chat API."
    )
    label: Annotated[str, Field(min_length=1, max_length=100)] | dict[str, Any] = Field(
        description="What is right; of a task with fields an object with all of them."
    )
    model: str | None = Field(default=None, description="Name of the task; may be left out where there is but one.")


async def feedback(request: Request) -> Response:
    """Put a person's label on the row of an answer; only another person's label replaces it."""
    runtime = runtime_of(request)
    require_feedback(runtime)
    given = await read_model(request, FeedbackRequest, runtime.max_body)
    require_name(given.model, runtime)
    trace_id, label = _trace_id(given.id), _label(given.label, runtime.task.spec)
    key = request.headers.get("idempotency-key")
    if key is not None and await run_in_threadpool(_seen, runtime.store, key, given):
        return _done(trace_id, label)
    await _correct(runtime, trace_id, label, admin=request.scope.get(ADMIN, False), tries=_TRIES)
    if key is not None:
        await run_in_threadpool(_remember, runtime.store, key, given)
    return _done(trace_id, label)


def require_feedback(runtime: Runtime) -> None:
    """Check that people may correct this task's answers.

    Raises
    ------
    RefusalError
        403 where that is turned off.
    """
    if not runtime.task.spec.server.feedback:
        raise RefusalError(403, "feedback is turned off for this task (server.feedback)", code="feedback_off")


async def correct(runtime: Runtime, given: str, label: str, *, admin: bool) -> None:
    """Put a person's label on a row, with the rights and limits of ``POST /v1/feedback``.

    Raises
    ------
    RefusalError
        400 for no label of the task, 403 at the key's limit, 404 for another key's row and for none.
    """
    await _correct(runtime, _trace_id(given), _label(label, runtime.task.spec), admin=admin, tries=1)


async def _correct(runtime: Runtime, trace_id: str, label: str, *, admin: bool, tries: int) -> None:
    trace = await _owned(runtime, trace_id, admin=admin, tries=tries)
    if trace.label_source != "human":  # a second thought about the same answer does not count again
        await run_in_threadpool(_count, runtime)
    if not await run_in_threadpool(runtime.store.traces.set_label, trace_id, label, "human"):
        raise _unknown()


def _label(given: str | dict[str, Any], spec: Spec) -> str:
    """Return the label that is meant.

    Raises
    ------
    RefusalError
        400 where the task has no such label.
    """
    if spec.answer_fields is not None:
        try:
            return spec.answer_fields.encode(json.loads(given) if isinstance(given, str) else given)
        except (ValueError, RecursionError) as error:
            raise RefusalError(400, f"this is no answer of {spec.name!r}: {error}", param="label") from None
    allowed = spec.label_names
    known = isinstance(given, str) and (given in allowed or not allowed) and given.strip() and given.isprintable()
    if not isinstance(given, str) or not known:
        raise RefusalError(400, f"this is none of the labels of {spec.name!r}", param="label")
    return given


def _done(trace_id: str, label: str) -> Response:
    return JSONResponse({"id": trace_id, "object": "feedback", "label": label})


def _trace_id(given: str) -> str:
    bare = next((given.removeprefix(prefix) for prefix in _PREFIXES if given.startswith(prefix)), given)
    try:
        return str(UUID(bare))
    except ValueError:
        raise _unknown() from None


async def _owned(runtime: Runtime, trace_id: str, *, admin: bool, tries: int) -> Trace:
    """Return the row of an answer that this key was given; an operator may correct any.

    Raises
    ------
    RefusalError
        404, also for another key's answer, so that no caller learns which ids exist.
    """
    for attempt in range(tries):
        trace = await run_in_threadpool(runtime.store.traces.get, trace_id)
        if trace is not None:
            if admin or trace.key_id == KEY_ID.get():
                return trace
            break
        if attempt + 1 < tries:
            await anyio.sleep(_PAUSE_S)
    raise _unknown()


def _count(runtime: Runtime) -> None:
    """Count a correction against the limit of this key for the current version.

    Raises
    ------
    RefusalError
        403 where the limit is reached.
    """
    key, limit = KEY_ID.get() or "", runtime.task.spec.server.feedback_limit
    loaded = runtime.live.loaded
    version = None if loaded is None else loaded.number

    def counted(known: Any) -> dict[str, Any]:
        counts = known["counts"] if known is not None and known["version"] == version else {}
        if counts.get(key, 0) >= limit:
            raise RefusalError(
                403,
                f"this key has corrected {limit:,} answers since version {version} became current, the most that"
                " server.feedback_limit allows",
                code="feedback_limit_reached",
            )
        return {"version": version, "counts": counts | {key: counts.get(key, 0) + 1}}

    runtime.store.values.update(COUNTS, counted)


def _unknown() -> RefusalError:
    return RefusalError(404, "there is no answer with this id", code="not_found", param="id")


def _seen(store: TraceStore, key: str, given: FeedbackRequest) -> bool:
    """Return whether this very request was done before.

    Raises
    ------
    RefusalError
        If the key came with another body.
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
