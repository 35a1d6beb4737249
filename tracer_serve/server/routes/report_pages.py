"""The reports of the versions, as a browser shows them. Nothing is loaded from elsewhere."""

import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from tracer_serve.report.render import content_security_policy
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError

SAFE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
"""Headers of every page."""
_NO_SCRIPTS = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_HEAD_BYTES = 4096
_NUMBER = re.compile("[0-9]{1,9}")


def report(request: Request) -> Response:
    """Answer with the report of one version, under the policy that it carries itself."""
    number: str = request.path_params["number"]
    file: Path | None = None
    if _NUMBER.fullmatch(number):  # a longer one is no name of a folder, or not even a number to Python
        file = runtime_of(request).versions.folder(int(number)) / "report.html"
    if file is None or not file.is_file():
        raise RefusalError(404, f"there is no report of a version {number[:20]}", code="not_found")
    return FileResponse(file, media_type="text/html", headers={"content-security-policy": _policy_of(file)} | SAFE)


def _policy_of(file: Path) -> str:
    """Return the policy that allows a report's own scripts by hash; without one no script may run."""
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES).decode("utf-8", "replace")
    try:
        return content_security_policy(head)
    except ValueError:
        return _NO_SCRIPTS
