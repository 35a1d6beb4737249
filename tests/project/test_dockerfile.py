"""The serving image, as far as it can be judged without an engine."""

import fnmatch
import json
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from tracer_serve.server.bento.bundle import BASE

ROOT = Path(__file__).parents[2]
Instructions = list[tuple[str, str]]


def read_stages() -> list[Instructions]:
    """Return the instructions of each stage, comments dropped and lines joined; a stage begins at its FROM."""
    source = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    found: list[Instructions] = []
    for line in re.sub(r"\\\n\s*", " ", source).splitlines():
        if line.strip():
            word, rest = line.split(maxsplit=1)
            if word == "FROM":
                found.append([])
            found[-1].append((word, rest))
    return found


@pytest.fixture(scope="module")
def stages() -> list[Instructions]:
    return read_stages()


def _only(stage: Instructions, word: str) -> str:
    (rest,) = (rest for name, rest in stage if name == word)
    return rest


def test_bases_are_pinned_and_the_same(stages: list[Instructions]) -> None:
    """Two stages on one base with an exact tag: what was built runs on the Python it was built for."""
    build, serve = (_only(stage, "FROM").split() for stage in stages)
    assert build[0] == serve[0]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", serve[0])
    assert build[1:] == ["AS", "build"]


def test_runs_as_nobody_special(stages: list[Instructions]) -> None:
    """The last user is a number other than root's, so that Kubernetes' runAsNonRoot can see it."""
    assert int(_only(stages[-1], "USER")) > 0
    words = [word for word, _ in stages[-1]]
    assert "RUN" not in words[words.index("USER") :]


def test_signals_reach_the_process(stages: list[Instructions]) -> None:
    """Entrypoint, command and health check are in exec form: no shell stands between SIGTERM and the service."""
    assert json.loads(_only(stages[-1], "ENTRYPOINT")) == ["tracer-serve"]
    (task,) = json.loads(_only(stages[-1], "CMD"))
    assert (ROOT / task).is_file()


def test_health_is_asked_where_the_service_answers(stages: list[Instructions]) -> None:
    """The check runs Python on the readiness route of the exposed port, and its code compiles."""
    rest = _only(stages[-1], "HEALTHCHECK")
    python, flag, code = json.loads(rest[rest.index("[") :])
    assert (python, flag) == ("python", "-c")
    compile(code, "healthcheck", "exec")
    assert f"127.0.0.1:{_only(stages[-1], 'EXPOSE')}/readyz" in code


def test_state_outlives_the_container(stages: list[Instructions]) -> None:
    """Store and versions lie on a volume that the user owns."""
    settings = dict(word.split("=", 1) for word in shlex.split(_only(stages[-1], "ENV")))
    assert json.loads(_only(stages[-1], "VOLUME")) == [settings["TRACER_SERVE_STATE"]]
    assert any(
        "--owner" in rest and settings["TRACER_SERVE_STATE"] in rest for word, rest in stages[-1] if word == "RUN"
    )


def test_no_torch_and_no_cache_in_the_image(stages: list[Instructions]) -> None:
    """What is installed is pinned, leaves no cache, and asks for no extra that brings torch."""
    (install,) = (rest for word, rest in stages[0] if word == "RUN" and "pip install" in rest)
    assert {"--no-cache-dir", "--constraint"} <= set(install.split())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (chosen,) = re.findall(r"\.\[(.*)\]", install)
    for extra in chosen.split(","):
        assert not any(re.match("torch|sentence-transformers|transformers", needed) for needed in extras[extra])


def test_what_is_copied_is_there_and_let_through(stages: list[Instructions]) -> None:
    """Every COPY source exists and .dockerignore, which shuts out all else, lets it pass."""
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    allowed = [line[1:] for line in lines if line.startswith("!")]
    copied = [
        part
        for word, rest in chain.from_iterable(stages)
        if word == "COPY" and "--from" not in rest
        for part in rest.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source


def test_hadolint_has_nothing_to_say() -> None:
    """The linter of Dockerfiles finds nothing, not even of style."""
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_bentos_have_the_same_base(stages: list[Instructions]) -> None:
    """A bento's image and this one run on one Python."""
    assert _only(stages[-1], "FROM") == BASE
