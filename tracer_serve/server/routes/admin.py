"""What only keys with the right admin may do; `Guard` has checked that. Each act is recorded in the audit log."""

import time
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from tracer_serve.errors import ArtifactError
from tracer_serve.infra.caller import KEY_ID
from tracer_serve.lifecycle.approval import approve as approve_version
from tracer_serve.lifecycle.rollback import roll_back
from tracer_serve.lifecycle.triggers import request_refit
from tracer_serve.server.http.api_keys import Caller
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.json_response import JsonAnswer
from tracer_serve.server.http.request_body import read_model
from tracer_serve.serving.runtime import Runtime
from tracer_serve.storage.traces.audit_log import AuditEntry, Outcome

_PAGE = 50
_LARGEST_PAGE = 500
_ACTS = {"/admin/refit": "refit", "/admin/rollback": "rollback", "/admin/approve": "approve"}
_REFUSAL_S = 60.0  # between two entries for the same key and act, so that refusals cannot fill the log


class RollbackRequest(BaseModel):
    """The version to go back to."""

    model_config = ConfigDict(extra="forbid", strict=True, title="RollbackRequest")

    version: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Version to serve; default: the last certified one before the current."
    )


class ApproveRequest(BaseModel):
    """The version to approve."""

    model_config = ConfigDict(extra="forbid", strict=True, title="ApproveRequest")

    version: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Version to serve, refused if another one waits by now; default: whichever waits."
    )


async def refit(request: Request) -> Response:
    """Request a refit; a process that serves this task starts it within seconds."""
    runtime = runtime_of(request)
    await run_in_threadpool(request_refit, runtime.store)
    await record(runtime, "refit")
    return JsonAnswer({"status": "requested", "follow": "/healthz"}, 202)


async def rollback(request: Request) -> Response:
    """Make an earlier version current; every worker loads it within a second."""
    runtime = runtime_of(request)
    asked = await read_model(request, RollbackRequest, runtime.max_body)
    try:
        done = await run_in_threadpool(roll_back, runtime.versions, asked.version)
    except ArtifactError as error:
        await record(runtime, "rollback", str(asked.version or ""), "failed")
        raise RefusalError(404, str(error), code=error.code, param="version") from error
    await record(runtime, "rollback", str(done.version), details={"before": done.before})
    return JsonAnswer({"version": done.version, "before": done.before})


async def approve(request: Request) -> Response:
    """Make the version that waits for approval current; every worker loads it within a second."""
    runtime = runtime_of(request)
    asked = await read_model(request, ApproveRequest, runtime.max_body)
    try:
        done = await run_in_threadpool(approve_version, runtime.store, runtime.versions, asked.version)
    except ArtifactError as error:
        await record(runtime, "approve", str(asked.version or ""), "failed")
        raise RefusalError(404, str(error), code=error.code, param="version") from error
    await record(runtime, "approve", str(done.version), details={"before": done.before})
    return JsonAnswer({"version": done.version, "before": done.before})


async def log(request: Request) -> Response:
    """Answer with the audit log, newest first: `limit` entries before the id `before`."""
    runtime, asked = runtime_of(request), request.query_params
    limit = asked.get("limit", str(_PAGE))
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:6]) <= _LARGEST_PAGE:
        raise RefusalError(400, f"limit has to be a number from 1 to {_LARGEST_PAGE}", param="limit")
    recent = runtime.store.audit_log.recent
    found = await run_in_threadpool(recent, int(limit), before_id=asked.get("before"))
    return JsonAnswer({"object": "list", "data": [entry_json(entry) for entry in found]})


def entry_json(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry of the audit log as JSON."""
    return {
        "id": entry.id,
        "at": entry.at.isoformat(timespec="seconds"),
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "outcome": entry.outcome,
        "details": dict(entry.details),
    }


async def record(
    runtime: Runtime, action: str, target: str = "", outcome: Outcome = "done", details: dict[str, Any] | None = None
) -> None:
    """Record what the key of this request did."""
    entry = AuditEntry(f"key:{KEY_ID.get()}", action, target, outcome, details or {})
    await run_in_threadpool(runtime.store.audit_log.record, entry)


class RefusedActs:
    """Records administrative acts that a known key tried without the right; each key and act at most once a minute."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}

    async def record(self, scope: Scope, caller: Caller) -> None:
        """Record a refused request; reading the log is no act."""
        action, now = _ACTS.get(scope["path"]), time.monotonic()
        if action is None or now < self._last.get((caller.key_id, action), -_REFUSAL_S) + _REFUSAL_S:
            return
        self._last[caller.key_id, action] = now
        entry = AuditEntry(f"key:{caller.key_id}", action, outcome="refused")
        await run_in_threadpool(scope["app"].state.runtime.store.audit_log.record, entry)
