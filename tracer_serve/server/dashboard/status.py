"""The numbers of the dashboard, as JSON: what every worker says alike, since it comes from the store."""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tracer_serve.components.teachers._health import Health
from tracer_serve.errors import ArtifactError, StoreError
from tracer_serve.lifecycle.certificates import certificate_of
from tracer_serve.lifecycle.gate_state.monitor_record import PROVED
from tracer_serve.lifecycle.refit_history import refits_as_json
from tracer_serve.lifecycle.triggers import REQUEST
from tracer_serve.report.stage_costs import names_of
from tracer_serve.server.dashboard.agreement import agreement_over_time, anytime_bound
from tracer_serve.server.dashboard.forwarded import forwarded_of
from tracer_serve.server.dashboard.recent import LOOKED_AT, recent_of
from tracer_serve.server.dashboard.traffic import counts, traffic_of
from tracer_serve.server.http.api_keys import Keys
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.json_response import JsonAnswer
from tracer_serve.server.routes.health import health, refitting
from tracer_serve.serving.runtime import Runtime
from tracer_serve.storage.traces import Tally
from tracer_serve.storage.versions.store import VersionStore, all_manifests

_REFITS = 8


@runtime_checkable
class _Observable(Protocol):
    """Teacher that reports its state."""

    @property
    def health(self) -> Health: ...


async def status(request: Request) -> Response:
    """Answer with the numbers of the dashboard; computed in a thread, so that no request waits for them."""
    runtime = runtime_of(request)
    facts = await run_in_threadpool(status_of, runtime)
    return JsonAnswer(facts, headers={"cache-control": "no-store"})


def status_of(runtime: Runtime, now: datetime | None = None) -> dict[str, Any]:
    """Return the state of a task; parts that the store cannot give are None, and `problems` says why.

    Parameters
    ----------
    now : UTC, for tests
    """
    now = now or datetime.now(UTC)
    facts = health(runtime)
    facts |= {
        "time": now.isoformat(timespec="seconds"),
        "admin": Keys.of(runtime.task.spec.server).may_anybody("admin"),
        "promise": _promise(runtime),
        "labels": _labels(runtime),
        "segments": _segments(runtime),
        "agreement": None,
        "traffic": None,
        "recent": None,
        "versions": [],
        "refits": [],
        "refit_requested": False,
        "forwarded": [],
    }
    facts["breakers"] = _breakers(runtime)
    try:
        facts["traffic"] = traffic_of(runtime.store, runtime.task.spec.teacher.params.get("price"), now)
        facts["recent"] = recent_of(
            runtime.store.traces.recent(LOOKED_AT), facts["version"] and facts["version"]["number"]
        )
        facts["versions"] = _versions(runtime)
        facts["agreement"] = _agreement(runtime, now)
        facts["forwarded"] = forwarded_of(runtime.store)
        facts["refit_requested"] = runtime.store.values.get(REQUEST) is not None
        facts["refits"] = refits_as_json(runtime.store, _REFITS, under_way=refitting(runtime))
    except (StoreError, ArtifactError) as error:
        if str(error) not in facts["problems"]:
            facts["problems"].append(str(error))
        facts["status"] = "degraded"
    return facts


def _promise(runtime: Runtime) -> dict[str, Any] | None:
    """Return how the audits of the version that serves came out; the bound holds however often one looks."""
    loaded = runtime.live.loaded
    if loaded is None:
        return None
    state = runtime.watch.monitor(loaded)
    return {
        "audits": state.seen,
        "agreements": state.agreements,
        "agreement": state.agreements / state.seen if state.seen else None,
        "lower_bound": anytime_bound(state.agreements, state.seen, state.delta) if state.seen else None,
        "required": state.alpha,
        "proved_live_at": state.proved_at,
        "confidence": 1.0 - state.delta,
        "forms": _forms(runtime),
    }


def _agreement(runtime: Runtime, now: datetime) -> dict[str, Any] | None:
    """Return the audits of the version that serves over time; None without a version."""
    loaded = runtime.live.loaded
    if loaded is None:
        return None
    state, created = runtime.watch.monitor(loaded), runtime.versions.manifest(loaded.number).created
    since = datetime.fromisoformat(created)
    return agreement_over_time(runtime.store, loaded.number, since, now, delta=state.delta, proved_at=state.proved_at)


def _labels(runtime: Runtime) -> list[dict[str, Any]]:
    """Return the recall per teacher label of the version that serves, lowest first; empty if nothing is certified.

    Measured on the calibration rows, as in the certificate; of protected labels also on sampled requests.
    """
    loaded = runtime.live.loaded
    certificate = None if loaded is None else loaded.policy.certificate
    if certificate is None or not certificate.certified:
        return []
    required, live = runtime.task.spec.gate.protect, runtime.watch.labels.states
    rows = []
    for row in certificate.recalls:
        state = live.get(row.label)
        watched = {"required": required.get(row.label), "live_rows": state and state.seen}
        rows.append(asdict(row) | watched | {"live_kept": state and state.agreements})
    return rows


def _segments(runtime: Runtime) -> list[dict[str, Any]]:
    """Return what the certificate says of each kind of text; empty if the task has no segments."""
    loaded = runtime.live.loaded
    rows = () if loaded is None else loaded.policy.certificate.segments
    return [
        {
            "segment": row.name,
            "rows": row.rows,
            "handled": row.n if row.certified else 0,
            "agreements": row.agreements if row.certified else 0,
            "lower_bound": row.lower_bound if row.certified else None,
            "finding": row.reason,
            "rows_needed": row.rows_needed,
        }
        for row in rows
    ]


def _forms(runtime: Runtime) -> list[dict[str, Any]]:
    """Return how the audits of each form came out, most audits first."""
    names = {form.fingerprint: form.name for form in runtime.forms}
    watched = runtime.watch.forms
    return [
        {
            "form": names.get(form, form),
            "audits": state.seen,
            "agreements": state.agreements,
            "agreement": state.agreements / state.seen,
            "suspended": form in watched.suspended,
        }
        for form, state in sorted(watched.states.items(), key=lambda item: -item[1].seen)
        if state.seen
    ]


def _breakers(runtime: Runtime) -> list[dict[str, str]]:
    """Return the circuit breakers of this worker's teacher; a teacher without an endpoint has none."""
    teacher = runtime.router.teacher
    if not isinstance(teacher, _Observable) or not isinstance(teacher.health, Health):
        return []
    return [{"endpoint": name, "state": state} for name, state in teacher.health.breakers]


def _versions(runtime: Runtime) -> list[dict[str, Any]]:
    """Return all versions, newest first, with what was certified and what came of it."""
    loaded, live = runtime.live.loaded, runtime.store.tallies.by_version()
    proved = runtime.store.values.get(PROVED) or {}
    return [
        {
            "number": m.version,
            "created": m.created,
            "traces": m.traces,
            "certified": m.certified,
            "reason": m.reason,
            "basis": m.basis,
            "serves": loaded is not None and loaded.number == m.version,
            **_certified_facts(runtime.versions, m.version),
            "report": (runtime.versions.folder(m.version) / "report.html").is_file(),
            "proved_live_at": proved.get(str(m.version)),
            "live": counts(live.get(m.version, Tally())),
        }
        for m in reversed(all_manifests(runtime.versions))
    ]


@lru_cache(maxsize=1024)
def _certified_facts(versions: VersionStore, number: int) -> dict[str, Any]:
    """Return a version's certified coverage, alpha and model, read once, as a version never changes."""
    try:
        found = certificate_of(versions, number)
    except ArtifactError:
        return {"coverage": None, "alpha": None, "model": None}
    return {
        "coverage": found.handled_share if found.certified else None,
        "alpha": found.alpha,
        "model": names_of(found)[0],
    }
