"""Build and run container images with buildah: no daemon, no engine, chroot isolation, the host's network.

``apt-get install buildah debootstrap`` brings what is needed. Debian's packages make the base image, tagged as the
Dockerfile's FROM line says, so that no registry of images has to be reached.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.server_process import parent_of, workers_at
from tests.support.waiting import until

ENV = os.environ | {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")  # a company's proxy may be among those that the host trusts
START_S = 600.0  # a first fit is part of it


def usable() -> bool:
    """Whether images can be built here."""
    return os.geteuid() == 0 and shutil.which("buildah") is not None and shutil.which("debootstrap") is not None


def buildah(*words: str, cwd: Path | None = None) -> str:
    """Run a command of buildah's and return what it prints."""
    done = subprocess.run(["buildah", *words], cwd=cwd, env=ENV, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def make_base(tag: str, folder: Path) -> None:
    """Make a base image of Debian bookworm with its Python and pip, unless there is one of that tag."""
    if buildah("images", "--quiet", "--filter", f"reference={tag}"):
        return
    packages = "python3,python3-venv,python3-pip,ca-certificates"
    made = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(folder)]
    subprocess.run([*made, "http://deb.debian.org/debian"], check=True, stdout=subprocess.DEVNULL)
    (folder / "usr/bin/python").symlink_to("python3")
    (folder / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink(missing_ok=True)  # the official image lets pip install
    shutil.copyfile(CERTIFICATES, folder / CERTIFICATES.relative_to("/"))
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(folder), "/")
    for name in ("SSL_CERT_FILE", "PIP_CERT"):
        buildah("config", "--env", f"{name}={CERTIFICATES}", container)
    buildah("commit", "--quiet", "--rm", container, tag)


def megabytes(image: str) -> float:
    """Return the size of all files of an image, of each once: uv links from its cache."""
    container = buildah("from", "--pull-never", image)
    try:
        root = Path(buildah("mount", container))
        found = (file.lstat() for file in root.rglob("*") if not file.is_dir())
        return sum({one.st_ino: one.st_size for one in found}.values()) / 1e6
    finally:
        buildah("rm", container)


class Container:
    """A running container.

    Parameters
    ----------
    client : for its server
    start_s : seconds from its start until it was ready
    """

    def __init__(self, client: httpx.Client, start_s: float) -> None:
        self.client, self.start_s = client, start_s

    @property
    def workers(self) -> set[int]:
        """The processes that answer."""
        return workers_at(self.client.base_url.port or 0)

    def replace_worker(self) -> float:
        """Kill a worker and return the seconds until another one answers."""
        killed, began = self.workers, time.monotonic()
        os.kill(min(killed), signal.SIGKILL)
        until(lambda: self.workers - killed, START_S)
        self.client.get("/readyz").raise_for_status()
        return time.monotonic() - began


@contextmanager
def running(image: str, port: int, words: Sequence[str], *, user: int) -> Iterator[Container]:
    """Run an image's entry point with some words, as its user; yield when it is ready, end it by SIGTERM."""
    container = buildah("from", "--pull-never", image)
    config = json.loads(buildah("inspect", container))["OCIv1"]["config"]
    began = time.monotonic()
    command = ["buildah", "run", container, "--", *config["Entrypoint"], *words]
    process = subprocess.Popen(command, env=ENV, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            until(lambda: process.poll() is not None or _is_ready(client), START_S)
            running_ = Container(client, time.monotonic() - began)
            owners = {Path(f"/proc/{pid}").stat().st_uid for pid in running_.workers}
            assert owners == {user}
            yield running_
        os.kill(parent_of(min(running_.workers)), signal.SIGTERM)
        process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        buildah("rm", container)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.HTTPError:
        return False
