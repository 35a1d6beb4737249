"""The whole service while its teacher has a bad day, and while a client stalls."""

import asyncio
import json
import socket
from collections.abc import Callable

import httpx
import pytest

from tests.server.chat.conftest import listening
from tests.server.worlds import LABELS, make_version, serving
from tests.support.stub_llm import Faults, StubLLM
from tests.support.waiting import until_async
from tracer_serve.config.load import Task
from tracer_serve.server.routes.response_models import ClassifyResponse, ErrorBody

pytestmark = pytest.mark.anyio
MakeTask = Callable[..., Task]
SCHEMA = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "colour", "schema": SCHEMA}}
UNKNOWN = {f"qqq www {i}": ("red" if i % 3 else "blue") for i in range(40)}  # shares nothing with what is certified
DEADLINE_S = 3.0


@pytest.mark.parametrize("on_teacher_down", ["error", "degraded"])
async def test_a_third_of_faults_makes_no_wrong_shape_no_wrong_label_and_no_hang(
    task: MakeTask, stub_llm: StubLLM, on_teacher_down: str
) -> None:
    """An answer has the asked shape, is upstream's own, or a typed error; labels are certified, or marked degraded."""
    teacher = {"type": "openai", "base_url": stub_llm.url, "model": "stub-1", "timeout_s": 0.4, "retries": 1}
    teacher |= {"deadline_s": DEADLINE_S, "cache": {"size": 0}}
    teacher |= {"breaker": {"failures": 100}}  # opened by a moment in which the machine stood still, it would end all
    form = {"name": "app", "prompt": "{text}", "options": {"response_format": FORMAT}, "same_as": "teacher"}
    spec = task(teacher=teacher, on_teacher_down=on_teacher_down, forms=[form])
    make_version(spec)
    truth = {**LABELS, **UNKNOWN}
    stub_llm.labels = truth
    # a chat call that is passed on may last for minutes
    kinds = ("429", "500", "503", "reset", "cut", "invalid_json", "nonsense", "empty", "html")
    seen: set[str] = set()
    async with serving(spec) as (client, _):

        async def classify(text: str) -> None:
            answer = await client.post("/v1/classify", json={"input": text})
            if answer.status_code != 200:
                seen.add(_is_typed(answer, "teacher_unavailable"))
                return
            seen.add(kind := answer.headers["x-tracer-decision"])
            label = ClassifyResponse.model_validate(answer.json()).data[0].label
            assert label in ("red", "blue")
            assert kind == "degraded" or label == truth[text]

        async def chat(text: str) -> None:
            body = {"model": "stub-1", "messages": [{"role": "user", "content": text}], "response_format": FORMAT}
            answer = await client.post("/v1/chat/completions", json=body)
            kind = answer.headers["x-tracer-decision"]
            seen.add(f"chat {kind}")
            if kind in ("handled", "degraded"):
                label = json.loads(answer.json()["choices"][0]["message"]["content"])["colour"]
                assert label in ("red", "blue")
                assert kind == "degraded" or label == truth[text]
                return
            sent = [one for one in stub_llm.requests.copy() if one["body"] == body][-1]
            if "status" in sent:
                assert (answer.status_code, answer.content) == (sent["status"], sent["answer"])
            else:  # upstream broke the connection
                _is_typed(answer, "upstream_unavailable")

        async with asyncio.timeout(20 * DEADLINE_S):  # 118 calls, 16 at a time, each within its deadline
            stub_llm.use(Faults(share=0.3, kinds=(*kinds, "loris")))
            await asyncio.gather(*(classify(text) for text in truth))
            stub_llm.use(Faults(share=0.3, kinds=kinds))
            await asyncio.gather(*(chat(text) for text in truth))
    assert {"handled", "deferred", "chat handled", "chat deferred"} < seen
    assert ("degraded" in seen) == ("chat degraded" in seen) == (on_teacher_down == "degraded")


def _is_typed(answer: httpx.Response, code: str) -> str:
    assert answer.status_code == 503
    assert ErrorBody.model_validate(answer.json()).error.code == code
    assert code != "teacher_unavailable" or "retry-after" in answer.headers
    return "error"


async def test_a_stalled_reader_holds_up_only_itself(task: MakeTask, stub_llm: StubLLM) -> None:
    """A client that does not read a long forwarded answer slows the upstream down, nobody else, and leaves nothing."""
    spec = task()
    make_version(spec)
    stub_llm.default = "x" * 600_000  # 150,000 events or 30 MB, more than all buffers on the way hold
    messages = [{"role": "user", "content": "write a book"}]
    body = json.dumps({"model": "stub-1", "messages": messages, "stream": True})
    with listening(spec) as url:
        host, port = httpx.URL(url).host, httpx.URL(url).port
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.to_thread(stalled.connect, (host, port))
            head = f"host: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
            stalled.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n{body}".encode())
            await until_async(lambda: stub_llm.in_flight == 1)
            async with httpx.AsyncClient(base_url=url, timeout=20) as client:
                for _ in range(5):
                    answer = await client.post("/classify", json={"input": "a rose as red as wine"})
                    assert answer.json()["data"][0]["label"] == "red"
                assert stub_llm.in_flight == 1  # not read to its end on the stalled client's behalf
        await until_async(lambda: stub_llm.in_flight == 0)
