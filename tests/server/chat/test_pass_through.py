"""With `teacher.api_key: pass_through` each call goes upstream with its caller's key, which is kept nowhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.server.worlds import DEFERRED, HANDLED, make_version, serving
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task, load_task
from tracer_serve.errors import SpecError

pytestmark = pytest.mark.anyio
MakeTask = Callable[..., Task]
URL = "/v1/chat/completions"


def teacher_of(stub: StubLLM) -> dict[str, Any]:
    return {"type": "openai", "base_url": stub.url, "model": "stub-1", "api_key": "pass_through", "retries": 0}


async def test_the_callers_key_goes_upstream_and_stays_nowhere(
    task: MakeTask, stub_llm: StubLLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Forwarded, deferred and audited calls carry their caller's key; neither store nor log has it."""
    spec = task(teacher=teacher_of(stub_llm), traces={"audit_rate": 1.0})
    make_version(spec)
    stub_llm.default = "blue"
    async with serving(spec) as (client, runtime):
        said = [runtime.router.teacher.request(text) for text in (DEFERRED, HANDLED)]  # type: ignore[attr-defined]
        said.append({"model": "stub-1", "messages": [{"role": "user", "content": "something else"}]})
        answers = [
            await client.post(URL, json=body, headers={"authorization": f"Bearer sk-of-caller-{n}"})
            for n, body in enumerate(said)
        ]
    decisions = [answer.headers["x-tracer-decision"] for answer in answers]
    assert decisions == ["deferred", "handled", "forwarded"]
    keys = [seen["headers"]["authorization"] for seen in stub_llm.requests]
    assert sorted(keys) == [f"Bearer sk-of-caller-{n}" for n in range(3)]
    assert "sk-of-caller" not in caplog.text
    for file in (path for path in (tmp_path / "state").rglob("*") if path.is_file()):
        assert b"sk-of-caller" not in file.read_bytes(), file


async def test_work_without_a_caller_needs_a_key_of_its_own(task: MakeTask, stub_llm: StubLLM) -> None:
    """A direct call has no LLM's key: it is refused before anything is sent."""
    async with serving(task(teacher=teacher_of(stub_llm))) as (client, _):
        answer = await client.post("/v1/classify", json={"input": DEFERRED}, headers={"authorization": "Bearer sk-x"})
    assert answer.status_code == 503 or "error" in json.dumps(answer.json())
    assert stub_llm.count == 0


def test_keys_of_the_server_never_leave_it(tmp_path: Path, stub_llm: StubLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two kinds of keys exclude each other."""
    monkeypatch.setenv("KEY", "k" * 20)
    file = tmp_path / "task.yaml"
    spec = {"name": "t", "teacher": teacher_of(stub_llm), "server": {"api_keys": ["${KEY}"]}}
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    with pytest.raises(SpecError, match="must not leave it"):
        load_task(file)
