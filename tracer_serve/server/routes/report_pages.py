"""The reports of the versions, as a browser shows them. Nothing is loaded from other hosts."""

import hashlib
import re

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tracer_serve.errors import ArtifactError
from tracer_serve.report.render import content_security_policy
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
    page = _page_of(runtime_of(request).versions, int(number)) if _NUMBER.fullmatch(number) else None
    if page is None:
        raise RefusalError(404, f"there is no report of a version {number[:20]}", code="not_found")
    return HTMLResponse(page, headers=page_headers(_policy_of(page)))


def _page_of(versions: VersionStore, number: int) -> bytes | None:
    """Return a version's page, None where there is none.

    Raises
    ------
    RefusalError
        500 where the file is not the one that the manifest lists.
    """
    if number not in versions.numbers():
        return None
    try:
        page = (versions.folder(number) / "report.html").read_bytes()
        listed = versions.manifest(number).files.get("report.html")
    except (FileNotFoundError, ArtifactError):
        return None
    if hashlib.sha256(page).hexdigest() != listed:
        problem = f"the report of version {number} was changed after it was written, so it is not shown"
        raise RefusalError(500, problem, code="artifact_error")
    return page


def _policy_of(page: bytes) -> str:
    """Return the policy that allows a report's own scripts by hash; without one no script may run."""
    try:
        return content_security_policy(page.decode("utf-8", "replace"))
    except ValueError:
        return _NO_SCRIPTS
