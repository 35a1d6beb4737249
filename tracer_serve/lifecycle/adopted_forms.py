"""Adopted call forms: found by discovery, accepted by a person or a command, kept in the trace store."""

from collections.abc import Mapping
from typing import Any

from tracer_serve.forms.form import Form
from tracer_serve.storage.traces import TraceStore

ADOPTED = "forms"
"""Key in the store: a list of the adopted forms, each with ``name``, ``form``, ``same_as`` and ``when_handled``."""


def adopted_forms(store: TraceStore) -> list[dict[str, Any]]:
    """Return the forms that were adopted, oldest first."""
    found: list[dict[str, Any]] = store.values.get(ADOPTED) or []
    return found


def adopt(
    store: TraceStore, name: str, form: Form, *, same_as: str = "", when_handled: Mapping[str, Any] | None = None
) -> None:
    """Adopt a form, so that its calls are the task's; an earlier entry for the same form is replaced.

    Parameters
    ----------
    name : its name in reports
    same_as : fingerprint of the form whose certificate covers it; empty: it needs a certificate of its own
    when_handled : as in the YAML's `forms`
    """
    new = {"name": name, "form": form.as_json(), "same_as": same_as, "when_handled": dict(when_handled or {})}

    def change(present: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        others = [one for one in present or [] if one["form"] != new["form"]]
        return [*others, new]

    store.values.update(ADOPTED, change)
