"""What the page of several tasks says of each: what it saves today, and what is at risk."""

import math
from datetime import UTC, datetime
from typing import Any

from tracer_serve.errors import StoreError
from tracer_serve.gate.wording import percent
from tracer_serve.server.dashboard.traffic import traffic_of
from tracer_serve.server.routes.health import health
from tracer_serve.serving.runtime import Runtime

_RISING = 0.5  # share of the way to an alarm, on the scale of the logarithm


def row_of(runtime: Runtime) -> dict[str, Any]:
    """Return the state of a task with today's savings, its lowest recall, and its risk.

    ``risk`` ranks tasks, 3 first: 3 something is wrong, 2 the gate is closed or the audits' evidence rises, 1 a label
    is lost often, 0 nothing of these. ``risk_words`` says which.
    """
    facts = health(runtime) | {"today": None, "saved": None, "lowest_recall": None}
    try:
        traffic = traffic_of(runtime.store, runtime.task.spec.teacher.params.get("price"), datetime.now(UTC))
        facts |= {"today": traffic["today"] | {"held_back": traffic["held_back"]["share"]}, "saved": traffic["money"]}
    except StoreError:
        pass  # `health` reports it
    loaded = runtime.live.loaded
    if loaded is not None and loaded.policy.certificate.certified and loaded.policy.certificate.recalls:
        lowest = loaded.policy.certificate.recalls[0]
        required = runtime.task.spec.gate.protect.get(lowest.label)
        facts["lowest_recall"] = {"label": lowest.label, "recall": lowest.recall, "required": required}
    risk, words = _risk(facts)
    return facts | {"risk": risk, "risk_words": words}


def _risk(facts: dict[str, Any]) -> tuple[int, str]:
    version, gate, monitor = facts["version"], facts["gate"], facts["monitor"]
    if facts["problems"]:
        return 3, " ".join(facts["problems"])
    if version is None:
        return 0, "Nothing is handled before the first version."
    if not gate["open"]:
        reason = str(gate["reason"]).replace("_", " ")
        return 2, f"Gate: {reason}. Nothing is handled, so nothing is saved."
    way = math.log(max(1.0, monitor["evidence"])) / math.log(monitor["alarm_at"])
    if way >= _RISING:
        return 2, "Audits disagree more often than they should; at the alarm the gate closes."
    if version["warning"]:
        lowest = facts["lowest_recall"]
        return 1, f"{lowest['label']!r} has a recall of {percent(lowest['recall'])}, and none is promised."
    return 0, "No alarm, and no label is lost often."
