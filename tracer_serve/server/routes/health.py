"""Is it alive, can it answer, what is wrong: for machines and for people."""

import math
from dataclasses import asdict
from itertools import islice
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tracer_serve.components.teachers._spend_limit import spend_limit_of
from tracer_serve.errors import ArtifactError, StoreError
from tracer_serve.gate.wording import bound_of, promise_of, recall_warning
from tracer_serve.lifecycle.approval import WaitingVersion, waiting_version
from tracer_serve.lifecycle.gate_state.reopening import reopening_of
from tracer_serve.lifecycle.refit_history import last_refit
from tracer_serve.lifecycle.refit_session import PROGRESS
from tracer_serve.lifecycle.triggers import just_begun
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.json_response import JsonAnswer
from tracer_serve.serving.metrics import CONTENT_TYPE, render
from tracer_serve.serving.runtime import Runtime
from tracer_serve.storage.traces.lease_owner import LEASE, live_holder

_LABELS = 20  # new labels that /healthz names


async def livez(_: Request) -> Response:
    """Liveness probe: return 200 while the process runs."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """Answer whether requests are answered, even if all are deferred or traces are lost; problems are listed."""
    return JSONResponse({"status": "ready"} | readiness(runtime_of(request)))


def readiness(runtime: Runtime) -> dict[str, Any]:
    """Return the public facts; with keys configured, problems are shown only to callers with a key."""
    loaded, problems = runtime.live.loaded, runtime.problems()
    if problems and runtime.task.spec.server.api_keys:
        problems = ["/healthz has the details"]
    number = None if loaded is None else loaded.number
    return {"version": number, "problems": problems, "yaml_changed": runtime.task.changed}


def healthz(request: Request) -> Response:
    """Answer with the details; 200 as long as requests are answered."""
    return JsonAnswer(health(runtime_of(request)))


def health(runtime: Runtime) -> dict[str, Any]:
    """Return the state of a task as people want to see it."""
    problems = runtime.problems()
    if runtime.task.changed:
        problems.append(f"{runtime.task.file} has changed since this server read it; restart to serve what it says now")
    budget = _budget(runtime)
    if budget is not None and budget["reached"]:
        spent = f"{budget['spent']:.4g} of {budget['per_day']:g} {budget['currency']}"
        problems.append(f"the teacher is not asked until {budget['renews_at']}: its budget is spent ({spent})")
    last: Any = None
    progress: Any = None
    repair: dict[str, Any] | None = None
    new: dict[str, int] = {}
    waiting: WaitingVersion | None = None
    try:
        under_way = refitting(runtime)
        last = last_refit(runtime.store, under_way=under_way)
        progress = runtime.store.values.get(PROGRESS) if under_way else None
        new = _new_labels(runtime)
        waiting = waiting_version(runtime.store, runtime.versions)
        ended = None if last is None else last["ended"]
        repair = _repair(runtime, under_way=under_way or just_begun(runtime.store, ended))
    except (StoreError, ArtifactError) as error:
        problems.append(str(error))
    return {
        "status": "degraded" if problems else "ok",
        "task": runtime.task.spec.name,
        "mode": runtime.task.spec.mode,
        "version": _version(runtime),
        "waiting": None if waiting is None else asdict(waiting),
        "gate": _gate(runtime) | {"repair": repair},
        "monitor": _monitor(runtime),
        "budget": budget,
        "problems": problems,
        "traces_waiting": runtime.writer.waiting,
        "traces_lost": runtime.writer.lost,
        "last_refit": last,
        "refit": progress,
        "new_labels": new,
    }


def refitting(runtime: Runtime) -> bool:
    """Return whether a refit is under way, here or elsewhere."""
    return live_holder(runtime.store, LEASE) is not None


def _new_labels(runtime: Runtime) -> dict[str, int]:
    """Return how often the most frequent labels occur that the version does not know."""
    loaded = runtime.live.loaded
    if loaded is None:
        return {}
    known = {*loaded.labels, *runtime.task.spec.label_changes.former}
    unknown = (item for item in runtime.store.tallies.counts().by_label.items() if item[0] not in known)
    return dict(islice(unknown, _LABELS))


def _gate(runtime: Runtime) -> dict[str, Any]:
    state, closing = runtime.gate, runtime.watch.closing
    last = None if closing is None else {"at": closing.at, "version": closing.version, "message": closing.message}
    return {
        "open": state.open,
        "reason": state.reason,
        "message": state.message or None,
        "closed_by": state.reason and state.reason.closed_by,
        "reopens_when": state.reason and state.reason.reopens_when,
        "last_closing": last,
    }


def _repair(runtime: Runtime, *, under_way: bool) -> dict[str, Any] | None:
    """Return what the next attempt to open a closed gate needs."""
    next_ = None if runtime.gate.open else reopening_of(runtime.task.spec, runtime.store, runtime.versions)
    if next_ is None:
        return None
    facts = {"rows": next_.rows, "needed": next_.needed, "tried_at": next_.before or None}
    return facts | {"words": next_.describe(under_way=under_way)}


def _monitor(runtime: Runtime) -> dict[str, Any] | None:
    loaded = runtime.live.loaded
    if loaded is None:
        return None
    state = runtime.watch.monitor(loaded)
    evidence = min(state.evidence, 1e300)  # JSON has no infinity
    return {
        "audits": state.seen,
        "agreements": state.agreements,
        "evidence": evidence,
        "alarm_at": 1.0 / state.delta,
        "proved_live_at": state.proved_at,
        "templates_deferred": runtime.watch.bursts.deferred,
        "audit_rate": runtime.watch.rate,
    }


def _budget(runtime: Runtime) -> dict[str, Any] | None:
    """Return what the teacher cost today in all processes; None without a budget."""
    limit = spend_limit_of(runtime.router.teacher)
    if limit is None:
        return None
    today = limit.read()
    return {
        "per_day": limit.budget.per_day,
        "currency": limit.currency,
        "when_reached": limit.budget.when_reached,
        "spent": today.spent,
        "reached": today.spent >= limit.budget.per_day,
        "renews_at": limit.renews_at.isoformat(timespec="seconds"),
        "answers_without_usage": today.uncounted,
    }


def _version(runtime: Runtime) -> dict[str, Any] | None:
    loaded = runtime.live.loaded
    if loaded is None:
        return None
    certificate = loaded.policy.certificate
    return {
        "number": loaded.number,
        "certified": certificate.certified,
        "reason": certificate.reason,
        "basis": certificate.basis,
        "alpha": certificate.alpha,
        "delta": None if math.isnan(certificate.delta) else certificate.delta,
        "coverage": certificate.handled_share,
        "lower_bound": bound_of(certificate),
        "promise": promise_of(certificate) if certificate.certified else None,
        "warning": recall_warning(certificate) or None,
    }


def metrics(request: Request) -> Response:
    """Answer Prometheus."""
    return Response(render([runtime_of(request).metrics]), headers={"content-type": CONTENT_TYPE})
