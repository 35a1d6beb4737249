"""Record what a person did by a command in the audit log of the task."""

from contextlib import closing
from typing import Any

from tracer_serve.config.load import Task
from tracer_serve.storage.traces.audit_log import AuditEntry, Outcome, cli_actor
from tracer_serve.storage.versions.opening import store_of


def record(task: Task, action: str, target: str = "", outcome: Outcome = "done", **details: Any) -> None:
    """Record an act of the person at the command line."""
    with closing(store_of(task)) as store:
        store.audit_log.record(AuditEntry(cli_actor(), action, target, outcome, details))
