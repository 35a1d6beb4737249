"""Photograph the dashboard and the report of the shipped task: ``python -m docs.screenshots [URL of a server]``."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.browser import chromium, open_page
from tests.support.waiting import until

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
PORT, FIT_S = 3971, 900.0


@contextmanager
def server() -> Iterator[str]:
    """Serve configs/banking.yaml on a state of its own; the first start fits."""
    with tempfile.TemporaryDirectory() as state:
        words = [
            sys.executable,
            "-m",
            "tracer_serve",
            "serve",
            str(ROOT / "configs" / "banking.yaml"),
            f"--port={PORT}",
        ]
        process = subprocess.Popen(words, env=os.environ | {"TRACER_SERVE_STATE": state})  # noqa: S603  # ours
        try:
            until(lambda: ready(f"http://127.0.0.1:{PORT}"), FIT_S)
            yield f"http://127.0.0.1:{PORT}"
        finally:
            process.terminate()
            process.wait()


def ready(url: str) -> bool:
    """Return whether a version serves."""
    try:
        return bool(httpx.get(f"{url}/healthz").json()["version"])
    except httpx.TransportError:
        return False


def ask(url: str) -> None:
    """Send the shipped texts that the version was not fitted on, so that the dashboard has traffic."""
    lines = (ROOT / "configs" / "banking.more.jsonl").read_text(encoding="utf-8").splitlines()
    for start in range(0, len(lines), 40):
        texts = [json.loads(line)["input"] for line in lines[start : start + 40]]
        httpx.post(f"{url}/v1/classify", json={"input": texts}, timeout=60).raise_for_status()


def photograph(url: str) -> None:
    """Write a picture of the top of both pages."""
    IMAGES.mkdir(exist_ok=True)
    with chromium() as driver:
        for name, page in (("dashboard", "/"), ("report", "/versions/1/report.html")):
            open_page(driver, url + page)
            driver.save_screenshot(str(IMAGES / f"{name}.png"))


if __name__ == "__main__":
    if sys.argv[1:]:
        ask(sys.argv[1])
        photograph(sys.argv[1])
    else:
        with server() as own:
            ask(own)
            photograph(own)
