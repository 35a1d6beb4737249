"""The arm of tracer-serve in `bench.flywheel`: the product's own code, without HTTP and real time."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from bench.data import Given, Part
from bench.flywheel_world import ALPHA, CALLS, DAYS, START, Day, World, agreement
from tracer_serve.config.load import Task
from tracer_serve.errors import FitError
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.gate.binomial import n_min
from tracer_serve.gate.monitor import MonitorState, advance, log_evidence
from tracer_serve.gate.settings import Ordinal
from tracer_serve.lifecycle.gate_state.closing import close_gate, closing_of
from tracer_serve.lifecycle.gate_state.monitor_record import MONITOR, add_audits, monitor_state
from tracer_serve.lifecycle.teacher_change import TeacherSince
from tracer_serve.lifecycle.training_set import calibrates_after, take_snapshot
from tracer_serve.policy.policy import Policy
from tracer_serve.serving.active_version import ActiveVersion
from tracer_serve.serving.audit_rate import Traffic, rate_in_force
from tracer_serve.storage.traces import TraceStore, new_id
from tracer_serve.types import Bools, Labels, Trace

_CHUNK = 50  # calls between two checks of the monitor
_TEACHER = TeacherSince("gold")


@dataclass(slots=True)
class Arm:
    """One system in one world.

    Parameters
    ----------
    audited : whether handled calls are audited, at ``audit_rate: auto``
    everything : whether every call is labelled free of charge
    """

    name: str
    world: World
    task: Task
    store: TraceStore
    audited: bool = True
    everything: bool = False
    rng: random.Random = field(default_factory=random.Random)
    loaded: ActiveVersion | None = None
    version: int = 0
    tried: float = 0.0
    attempts: int = 0

    def run(self) -> list[Day]:
        """Run all days, with a refit each night."""
        self.rng.seed(self.world.seed)
        self.store.traces.add(self._trace(i, self.world.labels[0], decision=None) for i in range(START))
        self.refit()
        found = []
        for number in range(1, DAYS + 1):
            found.append(self.live(number))
            self.refit()
        return found

    @property
    def closed(self) -> bool:
        """Whether the gate is closed."""
        closing = closing_of(self.store)
        return closing is not None and self._serving.after < closing.after

    @property
    def monitor(self) -> MonitorState:
        """The monitor's state."""
        return monitor_state(self.store.values.get(MONITOR), self._serving.certified, self.task.spec.gate)

    def refit(self, attempt: int = 1) -> None:
        """Refit as the product does: a version that does not certify never replaces one that does."""
        serving = "" if self.loaded is None else self.loaded.after
        closed = calibrates_after(self.store, closing_of(self.store), serving, attempt)
        try:
            taken = take_snapshot(self.store, _TEACHER, closed=closed)
            fitted = fit_policy(self.task, taken.rows, Given(self.world.pool), ordinal=Ordinal(self.version + 1))
        except FitError:
            return
        self.version += 1
        if fitted.certificate.certified or self.loaded is None:
            labels = tuple(map(str, fitted.policy.classes))
            self.loaded = ActiveVersion(self.version, fitted.policy, _TEACHER.fingerprint, labels, taken.after)

    def live(self, number: int) -> Day:
        """Run one day, in chunks, between which gate, rate and version may change."""
        morning, state = self._serving.policy, self.monitor
        facts = {} if self.closed else self._measured(morning, number)
        rows, label = self.world.day(number), self.world.labels[number - 1]
        handled = audits = right = 0
        for start in range(rows.start, rows.stop, _CHUNK):
            was_closed = self.closed
            outcomes, agree, asked = self._chunk(range(start, start + _CHUNK), label)
            handled, right, audits = handled + outcomes, right + agree, audits + asked
            if not was_closed and self.monitor.alarm:
                facts |= self._alarm(state, facts["agreement"])
            elif was_closed and self._repair_due():
                self.attempts += 1
                self.refit(self.attempts)
                if not self.closed:
                    facts |= {"reopened": start + _CHUNK - rows.start}
        certificate = morning.certificate
        return Day(
            world=self.world.name,
            arm=self.name,
            seed=self.world.seed,
            day=number,
            coverage=handled / CALLS,
            saved=(handled - audits) / CALLS,
            lived=right / handled if handled else None,
            reported=certificate.agreements / certificate.n if certificate.certified else None,
            audits=audits,
            **({"agreement": None} | facts),
        )

    @property
    def _serving(self) -> ActiveVersion:
        assert self.loaded is not None
        return self.loaded

    def _alarm(self, morning: MonitorState, agreed: float) -> dict[str, Any]:
        """Close the gate; return the number of audits of the day until then, and the expected number."""
        state, self.tried, self.attempts = self.monitor, 0.0, 0
        close_gate(self.store, self._serving.number, state.seen, state.agreements, state.evidence)
        median, late = expected_audits(morning, agreed)
        assert state.alarmed_at is not None
        return {"alarm_after": state.alarmed_at - morning.seen, "alarm_median": median, "alarm_late": late}

    def _chunk(self, rows: range, label: Labels) -> tuple[int, int, int]:
        """Decide some calls; return how many were handled, how many of those agree, and how many were audited."""
        loaded, closed = self._serving, self.closed
        certificate = loaded.policy.certificate
        given, accepts = _decide(loaded.policy, self.world.pool.take(np.arange(rows.start, rows.stop)))
        rate = 1.0
        if certificate.certified and not closed and not self.everything:
            state, traffic = self.monitor, Traffic(handled_per_day=certificate.coverage * CALLS)
            wanted = "auto" if self.audited else 0.0
            rate = rate_in_force(wanted, traffic, datetime.now(UTC), boosted=state.boosted)
        made, handled, right, outcomes = [], 0, 0, []
        for i, answer, accept in zip(rows, given, accepts, strict=True):
            if not accept or closed:
                made.append(self._trace(i, label, decision="deferred", rate=rate))
                continue
            agree, u = bool(answer == label[i]), self.rng.random()
            handled, right = handled + 1, right + agree
            if self.everything:
                made.append(self._trace(i, label, decision="deferred", rate=1.0))
            elif u < rate:
                outcomes.append(agree)
                made.append(self._trace(i, label, decision="handled", rate=rate, u=u))
        self.store.traces.add(made)
        if outcomes:
            self.store.values.update(MONITOR, add_audits(loaded.certified, self.task.spec.gate, outcomes))
        return handled, right, len(outcomes)

    def _repair_due(self) -> bool:
        """Return whether the schedule would try to open the gate: at four times the minimum, then with more rows."""
        closing = closing_of(self.store)
        rows = self.store.traces.labelled_since(closing.after if closing else "")
        if rows < max(4.0 * n_min(ALPHA, self.task.spec.gate.delta), 1.5 * self.tried):
            return False
        self.tried = rows
        return True

    def _measured(self, policy: Policy, number: int) -> dict[str, Any]:
        """Return the agreement on all later traffic, by the teacher's labels of today."""
        unseen = np.arange(self.world.day(number).start, len(self.world.pool))
        given, accepts = _decide(policy, self.world.pool.take(unseen))
        found = agreement(given, accepts, self.world.labels[number - 1][unseen])
        certificate, noise = policy.certificate, None
        if found is not None and certificate.n:
            share = certificate.agreements / certificate.n
            noise = float(np.sqrt(share * (1 - share) * (1 / certificate.n + 1 / accepts.sum())))
        return {"agreement": found, "noise": noise}

    def _trace(self, i: int, label: Labels, *, decision: Any, rate: float = 1.0, u: float | None = None) -> Trace:
        source = {"handled": "audit", "deferred": "teacher"}.get(decision, "import")
        return Trace(
            id=new_id(),
            ts=datetime.now(UTC),
            task="bench",
            input=self.world.pool.texts[i],
            teacher_label=str(label[i]),
            label_source=source,  # type: ignore[arg-type]
            decision=decision,
            version=self.version or None,
            audit_rate=rate,
            u=self.rng.random() if u is None else u,
            teacher_fingerprint=_TEACHER.fingerprint,
        )


def expected_audits(state: MonitorState, agreed: float, runs: int = 400, most: int = 3_000) -> tuple[float, float]:
    """Return median and 95 % quantile of the audits until an alarm, from a state on, at a constant agreement."""
    rng, first = np.random.default_rng(0), np.full(runs, float(most))
    bets = np.tile(np.asarray(state.log_bets), (runs, 1))
    for i in range(1, most + 1):
        number = state.before + state.seen + i
        bets = advance(bets, number, rng.random(runs) < agreed, state.alpha)
        rings = (log_evidence(bets, number) >= -np.log(state.delta)) & (first == most)
        first[rings] = i
        if (first < most).all():
            break
    return float(np.median(first)), float(np.quantile(first, 0.95))


def _decide(policy: Policy, part: Part) -> tuple[Labels, Bools]:
    seen = policy.score(part.texts, {policy.view: part.vectors})
    return policy.classes[seen.top], seen.handled
