"""What the texts of one request share: their question, the version that decides, and where outcomes are recorded."""

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tracer_serve.infra.caller import KEY_ID
from tracer_serve.policy.decision import Conditions, decide
from tracer_serve.serving.auditor import Auditor
from tracer_serve.serving.gate_watcher import GateWatcher
from tracer_serve.serving.metrics import Metrics
from tracer_serve.serving.question import Question
from tracer_serve.serving.trace_writer import TraceWriter
from tracer_serve.storage.traces import new_id
from tracer_serve.types import AuditKind, Decision, DecisionKind, Text, Trace, Verdict


@dataclass(slots=True)
class RequestContext:
    """One request.

    Parameters
    ----------
    task : its name
    version : number of the version that decides, None before the first
    conditions : what decides beside the version
    sampled : whether handled texts are audited at the current rate; else the rate is 1
    degrade_on : reasons of teacher errors for which the surrogate answers, uncertified and marked so
    metadata : stored with each trace
    latency_ms : per text of the batches, by stage
    """

    task: str
    question: Question
    version: int | None
    conditions: Conditions
    sampled: bool
    degrade_on: frozenset[str]
    metadata: dict[str, Any]
    latency_ms: dict[str, float]
    watch: GateWatcher
    writer: TraceWriter
    audits: Auditor
    metrics: Metrics

    @property
    def rate(self) -> float:
        """The audit rate of the next text: one text may spend what was left of a budget."""
        return self.watch.rate if self.sampled else 1.0

    def reason(self, stored: Text, verdict: Verdict | None) -> str:
        """Return why the surrogate answers a text or not."""
        if verdict is not None:
            in_burst = verdict.handled and self.watch.bursts.defers(stored)
            return decide(verdict.reason, self.conditions, in_burst=in_burst)
        return "no_version" if self.version is None else "policy_failed"

    def handle(self, text: Text, stored: Text, verdict: Verdict) -> Decision:
        """Answer with the surrogate's certified label; the row is written soon, and audited by chance or in a burst."""
        rate = self.rate
        trace = self.trace(stored, verdict, "handled", rate, propensity=rate)
        repeats = self.watch.bursts.count(stored) and rate > 0
        kind: AuditKind | None = "random" if trace.u < rate else "burst" if repeats else None
        if kind is not None:
            trace = replace(trace, audit_kind=kind)
        self.writer.put(trace)
        if kind is not None:
            self.watch.budget.pay()
            self.audits.ask(trace, text, self.question)
        self.metrics.requests["handled"].inc()
        if self.audits.mean_cost:
            self.metrics.cost["avoided"].inc(self.audits.mean_cost)
        return Decision(verdict.label, "handled", verdict.reason, trace.id, self.version, verdict)

    def trace(
        self,
        text: Text,
        verdict: Verdict | None,
        decision: DecisionKind,
        rate: float,
        *,
        propensity: float = 1.0,
        trace_id: str | None = None,
    ) -> Trace:
        """Return the row of a text, without a label.

        Parameters
        ----------
        text : as it is stored
        rate : the audit rate in force
        """
        return Trace(
            id=trace_id or new_id(),
            ts=datetime.now(UTC),
            task=self.task,
            input=text,
            surrogate_label=None if verdict is None else verdict.label,
            score=None if verdict is None else verdict.score,
            decision=decision,
            propensity=propensity,
            version=self.version,
            audit_rate=rate,
            u=random.random(),
            latency_ms=self.latency_ms,
            metadata=self.metadata,
            form=self.question.form,
            key_id=KEY_ID.get(),
        )
