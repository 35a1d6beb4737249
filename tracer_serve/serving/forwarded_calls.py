"""A bounded, redacted sample of forwarded calls: their forms, counts and reasons."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tracer_serve.errors import StoreError
from tracer_serve.forms.calls import Call
from tracer_serve.forms.form import Form
from tracer_serve.infra.periodic import PeriodicTask
from tracer_serve.storage.traces import TraceStore

FORWARDED = "forwarded"
"""Key in the store: kinds of forwarded calls, by form and reason."""

LabelOf = Callable[[str, bytes, bool], str | None]
_WRITE_S = 2.0
_LABELS = 20  # distinct labels that are counted for a form


@dataclass(slots=True)
class SeenForm:
    """One kind of forwarded call.

    Parameters
    ----------
    form : its description for people, redacted
    reason, nearest, detail : as in `forms.known.Mismatch`
    calls : number of calls since the last write
    labels : labels of the task in answers since the last write
    """

    form: str
    reason: str
    nearest: str
    detail: str
    calls: int = 0
    labels: Counter[str] = field(default_factory=Counter)


class ForwardedCalls:
    """Count forwarded calls by form and reason; all workers add their counts to the store.

    Parameters
    ----------
    most : most kinds of calls that are kept; 0 keeps none
    redact : applied to every excerpt of a prompt
    label_of : returns the task's label in an answer; None if there is none, given the API, the body, and whether it
        is a stream
    """

    def __init__(self, store: TraceStore, most: int, redact: Callable[[str], str], label_of: LabelOf) -> None:
        self._store, self._most, self._redact, self._label_of = store, most, redact, label_of
        self._seen: dict[str, SeenForm] = {}
        self._guard = threading.Lock()
        self._follower = PeriodicTask("tracer-forwarded", self.write, _WRITE_S)

    def start(self) -> None:
        """Start writing the counts."""
        self._follower.start()

    def stop(self) -> None:
        """Stop, and write the last counts."""
        if self._follower.stop():
            self.write()

    def note(self, call: Call, reason: str, nearest: str, detail: str) -> "Observed | None":
        """Count a call; return an observer for its answer."""
        if not self._most:
            return None
        key = f"{call.form.fingerprint}.{reason}"
        with self._guard:
            seen = self._seen.get(key)
            if seen is None:
                if len(self._seen) >= self._most:
                    return None
                seen = self._seen[key] = SeenForm(self._describe(call.form), reason, nearest, self._redact(detail))
            seen.calls += 1
        return Observed(seen, partial(self._label_of, call.form.api))

    def write(self) -> None:
        """Add the counts to the store."""
        with self._guard:
            seen, self._seen = self._seen, {}
        if not seen:
            return
        try:
            self._store.values.update(FORWARDED, lambda present: _added(present or {}, seen, self._most))
        except StoreError:
            return  # a sample may lose counts

    def _describe(self, form: Form) -> str:
        return form.describe(self._redact)


def sample_of(store: TraceStore) -> list[dict[str, Any]]:
    """Return the kinds of forwarded calls, most frequent first, with the fields of `SeenForm`."""
    kept: Mapping[str, dict[str, Any]] = store.values.get(FORWARDED) or {}
    return sorted(kept.values(), key=lambda one: -one["calls"])


@dataclass(frozen=True, slots=True)
class Observed:
    """Look for one of the task's labels in the answer to a forwarded call."""

    seen: SeenForm
    label_of: Callable[[bytes, bool], str | None]

    def completed(self, body: bytes, *, stream: bool) -> None:
        """Count the label in an answer."""
        label = self.label_of(body, stream)
        if label is not None and (label in self.seen.labels or len(self.seen.labels) < _LABELS):
            self.seen.labels[label] += 1


def _added(present: dict[str, Any], seen: Mapping[str, SeenForm], most: int) -> dict[str, Any]:
    """Return the stored counts plus new ones; of more than `most` kinds the most frequent."""
    whole = dict(present)
    for key, one in seen.items():
        before = whole.get(key, {"calls": 0, "labels": {}})
        whole[key] = {
            "form": one.form,
            "reason": one.reason,
            "nearest": one.nearest,
            "detail": one.detail,
            "calls": before["calls"] + one.calls,
            "labels": dict(Counter(before["labels"]) + one.labels),
        }
    frequent = sorted(whole, key=lambda key: -whole[key]["calls"])[:most]
    return {key: whole[key] for key in frequent}
