"""Render report.json as one self-contained page: autoescaped templates, inlined pinned assets, no external files.

The page brings its own Content-Security-Policy, which names its scripts and its style by hash and allows nothing else.
`content_security_policy` reads it back from a page, so that a server can send it as a header too.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tracer_serve.config.fields import label_in_words
from tracer_serve.gate.wording import at_least, percent
from tracer_serve.report.glossary import globals_of_templates

if TYPE_CHECKING:  # a server needs it when its first page is asked for, not when it starts
    from jinja2 import Environment

_HERE = Path(__file__).parent
_PAGE = ("words", "base", "tradeoff", "slices", "map", "plateau", "flows", "tables")
GROUPS = (
    (
        "alpha-and-traces",
        "Coverage and agreement",
        "What another alpha or more traces would give",
        ("tradeoff", "plateau"),
    ),
    ("by-label", "Labels", "How each label fares, and what is taken for what", ("labels", "fields", "flows")),
    ("deferrals", "Deferred requests", "Why they go to the teacher, and where", ("why", "slices", "contrast", "map")),
    ("differences", "Disagreements", "Where the teacher may be wrong", ("cards",)),
    ("history", "Versions and examples", "What changed, and rows drawn at random", ("changes", "examples")),
    ("proof", "Certificate", "What was tested, and on which rows", ("certificate",)),
)
"""Folds below the first screen: id, title, what it answers, and its sections (`templates/sections`) in their order."""
_META = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]+)"')
_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def render_html(report: Mapping[str, Any]) -> str:
    """Return report.html, rendered from report.json alone."""
    groups = [(*fold, [part for part in parts if part != "fields" or report.get("fields")]) for *fold, parts in GROUPS]
    return page("report.html", _PAGE, report, report=report, groups=groups)[0]


def page(
    template: str,
    scripts: Sequence[str],
    data: Mapping[str, Any],
    *,
    styles: Sequence[str] = ("report",),
    connect: str = "'none'",
    forms: bool = False,
    charts: bool = True,
    **context: object,
) -> tuple[str, str]:
    """Return a self-contained page with a Content-Security-Policy that allows only its own content.

    Parameters
    ----------
    scripts, styles : names of own files
    charts : whether the chart library precedes the scripts, if there are any
    data : data of the scripts
    connect : hosts that the scripts may call
    forms : whether its forms may be sent to the page's own server
    context : further variables of the template
    """
    style = "\n".join(asset(f"{name}.css") for name in styles)
    own = ["\n".join(asset(f"page/{name}.js") for name in scripts)] if scripts else []
    inlined = [asset("echarts.js"), *own] if scripts and charts else own
    policy = _security_policy(style, inlined, connect, "'self'" if forms else "'none'")
    html = (
        _environment()
        .get_template(template)
        .render(
            context,
            policy=Markup(policy),  # noqa: S704  # hashes and keywords only
            style=Markup(style),  # noqa: S704  # our own files
            scripts=[Markup(script) for script in inlined],  # noqa: S704  # our own files
            data=Markup(_json_in_script(data)),  # noqa: S704  # no character in it can end the script element
        )
    )
    return html, policy


def content_security_policy(page: str) -> str:
    """Return the policy that a page written by `render_html` carries, for the header of the same name.

    Raises
    ------
    ValueError
        If the page has none.
    """
    found = _META.search(page)
    if found is None:
        raise ValueError("the page carries no Content-Security-Policy; it was not written by render_html")
    return found[1]


def _security_policy(style: str, scripts: list[str], connect: str, forms: str) -> str:
    """Return the Content-Security-Policy that allows this style and these scripts and nothing else."""
    hashes = " ".join(map(_hash, scripts)) or "'none'"
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; img-src data: blob:;"
        f" connect-src {connect}; base-uri 'none'; form-action {forms}"
    )


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _json_in_script(data: Mapping[str, Any]) -> str:
    """Return JSON escaped so that it cannot end the script element."""
    whole = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(_IN_SCRIPT.get(character, character) for character in whole)


def asset(name: str) -> str:
    """Return one of the pinned files that a page inlines."""
    return (_HERE / "assets" / name).read_text(encoding="utf-8").strip()


def _environment() -> "Environment":
    """Return the templates, autoescaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= globals_of_templates()
    environment.filters |= {"percent": percent, "at_least": at_least, "number": number, "label": label}
    return environment


def label(name: str) -> Markup:
    """Return a label in words that may break after their underscores, escaped.

    Examples
    --------
    >>> print(label("<card>_lost"))
    &lt;card&gt;_<wbr>lost
    """
    return Markup("_<wbr>").join(label_in_words(name).split("_"))


def number(value: float | None) -> str:
    """Return a number with thousands separators, or a dash for None.

    Examples
    --------
    >>> number(12345), number(0.03125)
    ('12,345', '0.0312')
    """
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
