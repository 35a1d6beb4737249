"""What a browser shows: a plain status page and the reports of the versions. Nothing is loaded from elsewhere."""

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from tracer_serve.errors import ArtifactError
from tracer_serve.service.failures import RefusalError
from tracer_serve.service.health import health
from tracer_serve.service.runtime import runtime_of

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem;color:#1a1a1a}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .8rem .3rem 0;"
    "border-bottom:1px solid #ddd}.bad{color:#a00}code{background:#f3f3f3;padding:.1rem .3rem}"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#e6e6e6}td,th{border-color:#444}"
    "code{background:#2a2a2a}a{color:#8ab4f8}.bad{color:#ff8a80}}"
)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
_PAGE_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
# a report is one file with its own styles and pictures; scripts and everything from elsewhere stay out
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

_TEMPLATE = Environment(autoescape=True).from_string(
    """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ task }}</title><style>{{ style|safe }}</style>
<h1>{{ task }}</h1>
{% for problem in problems %}<p class="bad">{{ problem }}</p>{% endfor %}
{% if not version %}<p>No version yet: every request goes to the teacher, and each answer becomes a trace.</p>
{% else %}
<p>{% if version.certified %}Certified: agreement with the teacher &ge; {{ version.alpha }},
wrong with probability &le; {{ version.delta }}; it covers {{ "%.1f"|format(100 * version.coverage) }} % of the traffic.
{% else %}Version {{ version.number }} is not certified ({{ version.reason }}): every request goes to the teacher.
{% endif %}</p>{% endif %}
<table><tr><th>version<th>written<th>traces<th>certified<th>report
{% for m in versions|reverse %}
<tr><td>{{ m.version }}{% if version and m.version == version.number %} (serves){% endif %}
<td>{{ m.created }}<td>{{ m.traces }}<td>{{ "yes" if m.certified else m.reason }}
<td><a href="/versions/{{ m.version }}/report.html">report</a>{% endfor %}</table>
<p>Ask: <code>POST /v1/classify</code>. See also <a href="/docs.json">/docs.json</a>, <a href="/healthz">/healthz</a>,
<a href="/metrics">/metrics</a>.</p></html>
"""
)


def index(request: Request) -> Response:
    """Answer with the status page."""
    runtime = runtime_of(request)
    facts = health(runtime)
    try:
        versions = runtime.versions.manifests()
    except ArtifactError as error:
        versions = []
        facts["problems"].append(str(error))
    page = _TEMPLATE.render(style=_STYLE, versions=versions, **facts)
    return HTMLResponse(page, headers={"content-security-policy": _PAGE_POLICY} | _SAFE)


def report(request: Request) -> Response:
    """Answer with the report of one version."""
    number: int = request.path_params["number"]
    file: Path = runtime_of(request).versions.folder(number) / "report.html"
    if not file.is_file():
        raise RefusalError(404, f"there is no report of a version {number}", code="not_found")
    return FileResponse(file, media_type="text/html", headers={"content-security-policy": _REPORT_POLICY} | _SAFE)
