"""The image's steps, run in a folder in place of an image's root: everything but the base and the isolation is real."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.test_dockerfile import ROOT, Instructions, read_stages
from tests.support.server_process import answering, bare, classify, free_port

_OURS = re.compile(r"(?<![\w./])/(venv|state|build|app)\b")


class Image:
    """A root folder, and the settings that the steps so far have made."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root, self.work, self.env, self.home = root, root, bare(home), home
        for name in ("etc/passwd", "etc/group", "etc/shadow", "etc/subuid", "etc/subgid", "home/.keep"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()

    def inside(self, text: str) -> str:
        """Return a text with the paths of the image as those of the folder."""
        return _OURS.sub(rf"{self.root}/\1", text)

    def step(self, word: str, rest: str, built: Path) -> None:
        """Do what an engine does at a line."""
        if word == "RUN":
            changed = rest.replace("useradd ", f"useradd --prefix {self.root} ")
            path = f"{self.env['PATH']}:/usr/sbin:{Path(os.__file__).parents[2] / 'bin'}"
            subprocess.run(
                ["/bin/sh", "-ec", self.inside(changed)], cwd=self.work, env=self.env | {"PATH": path}, check=True
            )
        elif word == "WORKDIR":
            self.work = Path(self.inside(rest))
            self.work.mkdir(parents=True)
        elif word == "COPY":
            source = built if rest.startswith("--from=build") else None
            left_out = [] if source else ["__pycache__", "*.pyc"]  # .dockerignore's
            *names, target = [part for part in rest.split() if not part.startswith("--")]
            for name in names:
                place = Path(self.inside(target)) if target.startswith("/") else self.work / target
                _copy(source / name.lstrip("/") if source else ROOT / name, place, left_out)
        elif word == "ENV":
            for setting in shlex.split(rest):
                name, value = self.inside(setting).split("=", 1)
                self.env[name] = value.replace("$PATH", self.env["PATH"])


def _copy(source: Path, target: Path, left_out: list[str]) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*left_out))
    else:
        shutil.copy2(source, target)


def _build(stages: list[Instructions], folder: Path) -> Image:
    """Run both stages; each has the same root in its turn, so that the scripts of /venv name the right Python."""
    root, built = folder / "root", folder / "built"
    for number, stage in enumerate(stages):
        root.mkdir()
        image = Image(root, folder / "home")
        for word, rest in stage:
            image.step(word, rest, built)
        if number == 0:
            root.rename(built)
    shutil.rmtree(built)
    return image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    if os.geteuid() != 0:
        pytest.skip("a Dockerfile's steps are root's")
    folder = tmp_path_factory.mktemp("image")
    yield _build(read_stages(), folder)
    shutil.rmtree(folder)


def _files(image: Image) -> dict[str, tuple[int, int]]:
    found = (path for path in image.root.rglob("*") if "state" not in path.relative_to(image.root).parts)
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found if not path.is_dir()}


@pytest.mark.slow
def test_the_steps_make_a_small_server_without_torch(image: Image) -> None:
    """After the steps the core, ONNX, Postgres and S3 are installed, no torch or CUDA is, and the user is there."""
    (packages,) = image.root.glob("venv/lib/python3*/site-packages")
    names = {path.name.split("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert {"tracer_serve", "bentoml", "onnxruntime", "psycopg", "s3fs"} <= names
    assert not {name for name in names if fnmatch.fnmatch(name, "torch*") or fnmatch.fnmatch(name, "nvidia_c*")}
    assert "tracer:x:10001:" in (image.root / "etc" / "passwd").read_text()
    assert (image.root / "state").stat().st_uid == 10001
    megabytes = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()) / 1e6
    assert megabytes < 800


@pytest.mark.slow
def test_it_starts_is_healthy_writes_only_where_it_may_and_stops(image: Image, tmp_path: Path) -> None:
    """Entry point and command serve; the health check passes, and fails once SIGTERM has ended it with 0.

    Nothing of the image's own files is changed or added, so that the root file system may be read-only.
    """
    stage = dict(read_stages()[-1])
    before, port = _files(image), free_port()
    env = image.env | {"TMPDIR": str(tmp_path), "HOME": "/proc/nowhere", "TRACER_SERVE_INSECURE": "1"}
    words = [*json.loads(stage["ENTRYPOINT"]), *json.loads(stage["CMD"]), "--port", str(port)]
    words[0] = str(shutil.which(words[0], path=env["PATH"]))
    assert words[0].startswith(str(image.root))
    check = json.loads(stage["HEALTHCHECK"][stage["HEALTHCHECK"].index("[") :])
    healthy = [str(image.root / "venv/bin/python"), *(part.replace(":3000", f":{port}") for part in check[1:])]
    log = tmp_path / "log"
    log.mkdir()
    with answering(words, port, log, env, cwd=image.work) as client:
        assert subprocess.run(healthy, env=env, check=False).returncode == 0
        (row,) = classify(client, ["where is my new card, it has not come"])
        assert row["decision"] == "handled"
    assert subprocess.run(healthy, env=env, check=False, stderr=subprocess.DEVNULL).returncode != 0
    assert _files(image) == before
    assert (image.root / "state" / "banking" / "versions" / "current").is_file()
    assert [path for path in tmp_path.iterdir() if path != log] == []
