"""The reports of the versions, as a browser shows them. Nothing is loaded from other hosts."""

import hashlib
import json
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tracer_serve.errors import ArtifactError
from tracer_serve.report.compare import comparison_of
from tracer_serve.report.json_values import SCHEMA
from tracer_serve.report.render import content_security_policy, page
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.storage.versions.store import VersionStore

SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
}
"""Headers of everything that the operator sees in a browser."""
_NO_SCRIPTS = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_NUMBER = re.compile("[0-9]{1,9}")


def page_headers(policy: str) -> dict[str, str]:
    """Return the headers of a page under a Content-Security-Policy.

    No other page may frame it. Browsers ignore `frame-ancestors` in the policy that a page carries itself.
    """
    return {"content-security-policy": f"{policy}; frame-ancestors 'none'"} | SAFE


def report(request: Request) -> Response:
    """Answer with the report of one version, which has to be the file that the version was written with."""
    number: str = request.path_params["number"]
    found = _file_of(runtime_of(request).versions, int(number), "report.html") if _NUMBER.fullmatch(number) else None
    if found is None:
        raise _unknown(number)
    return HTMLResponse(found, headers=page_headers(_policy_of(found)))


def compare(request: Request) -> Response:
    """Answer with two versions side by side: `a` and `b` of the query, by default the newest two with a report."""
    versions = runtime_of(request).versions
    numbers = [n for n in versions.numbers() if (versions.folder(n) / "report.json").is_file()]
    newest = [*numbers[:1], *numbers][-2:]
    asked = [request.query_params.get(name, str(n)) for name, n in zip("ab", newest, strict=True)] if newest else ["1"]
    reports = [_report_of(versions, number) for number in asked]
    try:
        found = comparison_of(*reports)
    except KeyError as error:
        raise RefusalError(404, f"one of these reports is of an older release: it has no {error}") from None
    html, policy = page(
        "compare.html", (), {}, styles=("report", "dashboard"), forms=True, found=found, numbers=numbers[::-1]
    )
    return HTMLResponse(html, headers=page_headers(policy))


def _report_of(versions: VersionStore, number: str) -> tuple[int, Any]:
    """Return a version's number and its report.json.

    Raises
    ------
    RefusalError
        404 if there is none, or one of another schema; 500 where the file was changed.
    """
    found = _file_of(versions, int(number), "report.json") if _NUMBER.fullmatch(number) else None
    data = None if found is None else json.loads(found)
    if data is None or data.get("schema") != SCHEMA:
        raise _unknown(number)
    return int(number), data


def _unknown(number: str) -> RefusalError:
    return RefusalError(404, f"there is no report of a version {number[:20]}", code="not_found")


def _file_of(versions: VersionStore, number: int, name: str) -> bytes | None:
    """Return a file of a version; None if there is none.

    Raises
    ------
    RefusalError
        500 where the file is not the one that the manifest lists.
    """
    if number not in versions.numbers():
        return None
    try:
        found = (versions.folder(number) / name).read_bytes()
        listed = versions.manifest(number).files.get(name)
    except (FileNotFoundError, ArtifactError):
        return None
    if hashlib.sha256(found).hexdigest() != listed:
        problem = f"the report of version {number} was changed after it was written, so it is not shown"
        raise RefusalError(500, problem, code="artifact_error")
    return found


def _policy_of(page: bytes) -> str:
    """Return the policy that allows a report's own scripts by hash; without one no script may run."""
    try:
        return content_security_policy(page.decode("utf-8", "replace"))
    except ValueError:
        return _NO_SCRIPTS
