"""Serve a task with an installed tracer-serve and ask it once: ``python tests/support/smoke.py COMMAND TASK.yaml``.

Needs nothing but Python, so that it can try a wheel in an environment without the packages of the tests.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

LIMIT_S = 900.0  # the first start fits
TEXT = "where is my new card, it has not come"


def main(command: str, task: str) -> int:
    """Start the server on a state of its own, ask, and return 0 if an answer came."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as state:
        environment = os.environ | {"TRACER_SERVE_STATE": state}
        words = [str(Path(command).resolve()), str(Path(task).resolve()), f"--port={port}"]
        with subprocess.Popen(words, cwd=state, env=environment) as server:
            try:
                item = _ask(f"http://127.0.0.1:{port}", server)
            finally:
                server.terminate()
    sys.stdout.write(f"smoke: {item['decision']} as {item['label']} by version {item['version']}\n")
    return 0 if item["decision"] in ("handled", "deferred") and item["label"] and item["version"] else 1


def _ask(url: str, server: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait until a version serves, then classify one text."""
    end = time.monotonic() + LIMIT_S
    while not _json(f"{url}/healthz").get("version"):
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit("smoke: the server ended, or served no version in time")
        time.sleep(0.5)
    item: dict[str, Any] = _json(f"{url}/v1/classify", {"input": TEXT})["data"][0]
    return item


def _json(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a JSON answer; an empty object while nothing listens or the server is not ready."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.URLError:
        if body is not None:
            raise
        return {}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
