"""Clients that the project's own environment does not have, each in an environment of its own."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.peer import environment
from tests.server.chat.conftest import listening
from tests.server.worlds import HANDLED, make_version
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task

SCRIPTS = Path(__file__).parent / "clients"
QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1"}
_STREAMED = ("stream", "stream_options")  # no part of a form


def run(python: Path, script: str, url: str) -> list[str]:
    """Return the answers that a client's script parsed."""
    words = [str(python), str(SCRIPTS / script), url, HANDLED]
    done = subprocess.run(
        words, env=os.environ | QUIET | {"PYTHONPATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_forms(folder: Path, bodies: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Record what a client sends, as an operator would; a stream has the form of the call it streams."""
    whole = [{k: v for k, v in body.items() if k not in _STREAMED} for body in bodies]
    found = dict.fromkeys(json.dumps(body, sort_keys=True).replace(HANDLED, "{text}") for body in whole)
    for place, form in enumerate(found):
        (folder / f"form-{place}.json").write_text(form, encoding="utf-8")
    return [{"name": f"form-{i}", "request": f"form-{i}.json", "same_as": "teacher"} for i in range(len(found))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "packages", "script", "teacher"),
    [
        ("openai-newest", ("openai>=3",), "openai_newest.py", "openai"),
        ("litellm-client", ("litellm==1.106.2", "mcp"), "litellm_client.py", "openai"),
        ("litellm-client", ("litellm==1.106.2", "mcp"), "litellm_messages.py", "anthropic"),
        ("langchain-anthropic", ("langchain-anthropic>=1.7",), "langchain_anthropic_client.py", "anthropic"),
    ],
)
def test_only_the_base_url_changes(
    *,
    name: str,
    packages: tuple[str, ...],
    script: str,
    teacher: str,
    task: Callable[..., Task],
    tmp_path: Path,
    stub_llm: StubLLM,
) -> None:
    """Every call of the client parses the surrogate's answer, and none reaches the LLM."""
    python = environment(name, *packages)
    stub_llm.default = "red"
    before = run(python, script, stub_llm.url)
    forms = write_forms(tmp_path, [request["body"] for request in stub_llm.requests])
    spec = task(forms=forms, teacher={"type": teacher, "base_url": stub_llm.url, "model": "stub-1", "retries": 0})
    make_version(spec)
    stub_llm.reset()
    stub_llm.default = "blue"
    with listening(spec) as url:
        assert run(python, script, url) == before == ["red"] * len(before)
    assert stub_llm.count == 0
