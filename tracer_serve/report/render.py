"""The report's data to one self-contained page: autoescaped templates, nothing from another host."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_HERE = Path(__file__).parent


def render_html(report: Mapping[str, Any]) -> str:
    """Return report.html, drawn from report.json and nothing else."""
    return _environment().get_template("report.html").render(report=report)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number}
    return environment


def percent(value: float | None) -> str:
    """Return a share in percent, a dash where there is none.

    Examples
    --------
    >>> percent(0.9531), percent(None)
    ('95.3 %', '-')
    """
    return "-" if value is None else f"{100 * value:.1f} %"


def number(value: float | None) -> str:
    """Return a number with thousands separated, a dash where there is none.

    Examples
    --------
    >>> number(12345), number(0.03125)
    ('12,345', '0.0312')
    """
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
