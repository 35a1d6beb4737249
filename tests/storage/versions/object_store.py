"""A private S3 server for the tests: moto's, in a process of its own, with one bucket, gone afterwards."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

BUCKET = "versions"


def missing() -> str | None:
    """Why there can be no server here, None if there can."""
    lacking = [name for name in ("moto", "flask", "s3fs") if find_spec(name) is None]
    return (
        f"not installed: {', '.join(lacking)}; pip install '.[dev]' in a checkout of tracer-serve" if lacking else None
    )


@contextmanager
def server(*options: str) -> Iterator[tuple[dict[str, str], int]]:
    """Yield the environment that leads to a fresh server, and its process id; moto's `options` are added."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), *options]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        _await(port)
        yield variables(port), process.pid
    finally:
        process.kill()
        process.wait()


def variables(port: int) -> dict[str, str]:
    """Return what a client of the server finds in its environment."""
    return {
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def make_bucket() -> None:
    """Make the bucket; in a process of its own, since no client survives a fork."""
    script = f"import s3fs; s3fs.S3FileSystem().mkdir({BUCKET!r})"
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ)


def _await(port: int, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < end, "the S3 server does not start"
            time.sleep(0.05)
        else:
            return
