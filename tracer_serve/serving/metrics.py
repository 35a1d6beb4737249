"""Prometheus metrics of a task; no label value comes from a user's text.

With several workers, each writes its numbers to files below ``PROMETHEUS_MULTIPROC_DIR``, and any of them can sum them
up. That variable must be set before `prometheus_client` is first imported.
"""

import os
import threading
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from tracer_serve.errors import TEACHER_REASONS
from tracer_serve.forms.known import FORWARD_REASONS
from tracer_serve.gate.wording import bound_of
from tracer_serve.infra.periodic import PeriodicTask
from tracer_serve.lifecycle.gate_state.state import VOIDING
from tracer_serve.policy.decision import DEFERRED_REASONS
from tracer_serve.serving.active_version import ActiveVersion
from tracer_serve.serving.gate_watcher import GateWatcher
from tracer_serve.serving.metric_buffer import Count, Seconds

disable_created_metrics()  # type: ignore[no-untyped-call]  # an unused second series for each counter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_WRITE_S = 0.5
_DECISIONS = ("handled", "deferred", "degraded", "error")
_OUTCOMES = ("certified", "abstained", "busy", "failed", "timeout", "stopped")
_STAGES = ("total", "embed", "predict", "teacher")


VERSION_METRICS = {
    "tracer_budget_spent_ratio": "Share of the teacher's budget for this day (UTC) that is spent; absent without one.",
    "tracer_coverage_ratio": "Certified share of traffic that is handled.",
    "tracer_agreement_lower_bound": "Certified lower bound of teacher agreement; absent if there is none.",
    "tracer_agreement_target": "Required teacher agreement, alpha.",
    "tracer_policy_info": "The version that serves, its teacher and its embedder.",
    "tracer_gate_closed": "1 while the certificate is void, by `reason`: drift, teacher_changed, promise_changed.",
    "tracer_audit_rate": "Probability that a handled text is audited.",
    "tracer_monitor_evidence": "Evidence of the monitor that agreement is below alpha; an alarm at 1/delta.",
    "tracer_proved_live": "1 once the version's audits prove that agreement is above alpha.",
}
"""Gauges that all workers share, exposed while a version serves or a budget is set, with their help texts."""


class Metrics:
    """The counters of one task in this process.

    Parameters
    ----------
    task : name of the task, a label of every series
    loaded : returns the version that serves
    watch : returns the gate watcher
    budget : returns the share of the teacher's budget that is spent; None without one
    """

    def __init__(
        self,
        task: str,
        loaded: Callable[[], ActiveVersion | None],
        watch: Callable[[], GateWatcher | None] = lambda: None,
        budget: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._registry = CollectorRegistry()
        self.task = task
        self.version = _SharedCollector(task, loaded, watch, budget)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tracer_{name}", text, ("task", *labels), registry=self._registry)

        requests = counter("requests_total", "Texts answered, by decision.", "decision")
        self.requests = {kind: Count(requests.labels(task, kind)) for kind in _DECISIONS}
        deferred = counter("deferred_total", "Texts that the surrogate did not answer, by why.", "reason")
        self.deferred = {reason: Count(deferred.labels(task, reason)) for reason in DEFERRED_REASONS}
        seconds = Histogram(
            "tracer_request_duration_seconds",
            "Time to an answer, by stage.",
            ("task", "stage"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.seconds = {stage: Seconds(seconds.labels(task, stage)) for stage in _STAGES}
        audits = counter(
            "audit_total", "Handled texts that were also sent to the teacher, by whether it agreed.", "agree"
        )
        self.audits = {agree: audits.labels(task, agree) for agree in ("true", "false", "unanswered")}
        bursts = counter("burst_audit_total", "Repeats of a template that were also sent to the teacher.", "agree")
        self.burst_audits = {agree: bursts.labels(task, agree) for agree in ("true", "false")}
        shadow = counter(
            "shadow_total", "Certified texts that mode or gate gave to the teacher, by whether it agreed.", "agree"
        )
        self.shadow = {agree: shadow.labels(task, agree) for agree in ("true", "false")}
        cost = counter("cost_usd_total", "Teacher cost in the price's currency; `avoided` is an estimate.", "kind")
        self.cost = {kind: Count(cost.labels(task, kind)) for kind in ("spent", "avoided", "audit")}
        self._teacher_errors = counter("teacher_errors_total", "Teacher calls without a usable label.", "reason")
        self._refits = counter("refit_total", "Refits, by outcome.", "outcome")
        for series, values in ((self._teacher_errors, TEACHER_REASONS), (self._refits, _OUTCOMES)):
            for (
                value
            ) in values:  # start at 0: a series that starts with its first failure shows no increase to alert on
                series.labels(task, value)
        self._forwarded = counter("calls_forwarded_total", "LLM calls forwarded unanswered, by reason.", "reason")
        for reason in FORWARD_REASONS:
            self._forwarded.labels(task, reason)
        self.lost = counter("traces_lost_total", "Traces that never reached the store.").labels(task)
        self.delayed = counter(
            "traces_delayed_total", "Traces that waited in memory because the store took none."
        ).labels(task)
        self.policy_failures = counter("policy_failures_total", "Texts deferred because the policy failed.").labels(
            task
        )
        remembered = counter("decision_cache_total", "Texts looked up in the decision cache.", "result")
        self.remembered = {result: Count(remembered.labels(task, result)) for result in ("hit", "miss")}
        self.new_labels = counter("new_labels_total", "Answers with a label unknown to the version.").labels(task)
        self.load_failures = counter(
            "version_load_failures_total", "Versions that did not load; the previous one serves."
        ).labels(task)
        gathered = (self.requests, self.deferred, self.seconds, self.cost, self.remembered)
        self._gathered: list[Count | Seconds] = [series for kind in gathered for series in kind.values()]
        self._writing = threading.Lock()
        self._follower = PeriodicTask("tracer-metrics", self.write, _WRITE_S)

    def start(self) -> None:
        """Start writing the counts, so that other workers can read them."""
        self._follower.start()

    def stop(self) -> None:
        """Stop, and write the last counts."""
        self._follower.stop()
        self.write()

    def write(self) -> None:
        """Write the counts since the last write."""
        with self._writing:
            for series in self._gathered:
                series.write()

    def teacher_error(self, reason: str) -> None:
        """Count a teacher's failure under its bounded reason."""
        self._teacher_errors.labels(self.task, reason).inc()

    def forwarded(self, reason: str) -> None:
        """Count a call that was forwarded unanswered under its bounded reason."""
        self._forwarded.labels(self.task, reason).inc()

    def refit(self, outcome: str) -> None:
        """Count a refit under its bounded outcome."""
        self._refits.labels(self.task, outcome).inc()

    def collect(self) -> Iterable[Metric]:
        """Return the series of this process, and those of its version."""
        yield from self._registry.collect()
        yield from self.version.collect()


def render(several: Sequence[Metrics]) -> bytes:
    """Return the text exposition of some tasks, each family once, with the counts of all workers.

    The counts of this process are current, those of others at most half a second old.
    """
    for metrics in several:
        metrics.write()
    registry = CollectorRegistry()
    registry.register(_CombinedCollector(several))
    return generate_latest(registry)


class _CombinedCollector(Collector):
    """The series of some of this process's tasks."""

    def __init__(self, several: Sequence[Metrics]) -> None:
        self._several = several

    def collect(self) -> Iterable[Metric]:
        tasks = {metrics.task for metrics in self._several}
        families: dict[str, Metric] = {}
        for family in self._all():
            kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            kept.samples += [sample for sample in family.samples if sample.labels["task"] in tasks]
        return families.values()

    def _all(self) -> Iterable[Metric]:
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return (family for metrics in self._several for family in metrics.collect())
        counted = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        versions = (family for metrics in self._several for family in metrics.version.collect())
        return (*counted.collect(), *versions)  # type: ignore[no-untyped-call]


class _SharedCollector(Collector):
    """Gauges of the version that serves and of the budget; every worker has the same, so they are not summed up."""

    def __init__(
        self,
        task: str,
        loaded: Callable[[], ActiveVersion | None],
        watch: Callable[[], GateWatcher | None],
        budget: Callable[[], float | None],
    ) -> None:
        self._task, self._loaded, self._watch, self._budget = task, loaded, watch, budget

    def collect(self) -> Iterable[Metric]:
        if (spent := self._budget()) is not None:
            yield from self._gauges(tracer_budget_spent_ratio=spent)
        loaded = self._loaded()
        if loaded is None:
            return
        certificate = loaded.policy.certificate
        yield from self._gauges(
            tracer_coverage_ratio=certificate.handled_share,
            tracer_agreement_lower_bound=bound_of(certificate),
            tracer_agreement_target=certificate.alpha,
        )
        info = _gauge("tracer_policy_info", "version", "teacher", "embedder")
        info.add_metric((self._task, str(loaded.number), loaded.teacher, loaded.policy.fingerprint), 1.0)
        yield info
        watch = self._watch()
        if watch is not None:
            yield from self._watched(watch, loaded)

    def _watched(self, watch: GateWatcher, loaded: ActiveVersion) -> Iterable[Metric]:
        closed = _gauge("tracer_gate_closed", "reason")
        for reason in VOIDING:
            closed.add_metric((self._task, reason), float(watch.closed(loaded) == reason))
        yield closed
        monitor = watch.monitor(loaded)
        yield from self._gauges(
            tracer_audit_rate=watch.rate,
            tracer_monitor_evidence=monitor.evidence,
            tracer_proved_live=float(monitor.proved_at is not None),
        )

    def _gauges(self, **values: float | None) -> Iterable[Metric]:
        """Yield a family per name, with its value if it has one."""
        for name, value in values.items():
            family = _gauge(name)
            if value is not None:
                family.add_metric((self._task,), value)
            yield family


def _gauge(name: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, VERSION_METRICS[name], labels=("task", *labels))
