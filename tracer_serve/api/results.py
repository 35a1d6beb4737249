"""Results of the Python API."""

import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tracer_serve.config.fields import WHOLE, values_of


@dataclass(frozen=True, slots=True)
class Classified:
    """Decision on one text.

    Parameters
    ----------
    label : the label, of a task with fields JSON; None if the text was deferred and no teacher was asked
    decision : ``handled``, ``deferred`` or ``degraded``
    reason : why, as in `tracer_serve.policy.decision`
    score : the acceptor's score, None without a version
    version : the version that decided, None without one
    """

    label: str | None
    decision: str
    reason: str
    score: float | None
    version: int | None

    @property
    def fields(self) -> dict[str, Any]:
        """Return the certified fields of the answer; empty without them, and without an answer."""
        return {name: value for name, value in values_of(self.label or "").items() if name != WHOLE}


@dataclass(frozen=True, slots=True)
class Report:
    """Report of a version.

    Parameters
    ----------
    data : content of report.json (schema: docs/report.md)
    page : the self-contained HTML page
    """

    version: int
    data: dict[str, Any]
    page: str

    @classmethod
    def read(cls, version: int, folder: Path) -> Self:
        """Read the report from a version's folder."""
        data = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return cls(version, data, (folder / "report.html").read_text(encoding="utf-8"))

    def _repr_html_(self) -> str:
        """Return the page in a sandboxed frame, as notebooks show it."""
        return f'<iframe sandbox="allow-scripts" width="100%" height="720" srcdoc="{html.escape(self.page)}"></iframe>'
