"""POST /v1/classify: shapes, order, statuses."""

import json
import re
from collections.abc import AsyncIterator, Callable
from unittest.mock import ANY

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.server.worlds import BLUE, DEFERRED, HANDLED, make_version, serving
from tests.support.stub_llm import Faults, StubLLM
from tracer_serve.config.load import Task
from tracer_serve.lifecycle.gate_state.closing import close_gate
from tracer_serve.server.http.request_body import WHOLE
from tracer_serve.server.routes.response_models import ClassifyResponse, ErrorBody

pytestmark = pytest.mark.anyio
MakeTask = Callable[..., Task]
URL = "/v1/classify"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_one_text_gets_one_item_in_the_shape_that_vllm_uses(task: MakeTask) -> None:
    """A handled text is answered with label, decision, score, no tokens, and headers that repeat them."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, _):
        answer = await client.post(URL, json={"input": HANDLED, "model": "colours"})
    body = ClassifyResponse.model_validate(answer.json())
    (item,) = body.data
    assert (body.object, body.model, item.index, item.label, item.num_classes) == ("list", "colours", 0, "red", 2)
    assert (item.decision, item.version, body.usage.total_tokens) == ("handled", 1, 0)
    assert answer.headers["x-tracer-decision"] == "handled"
    assert answer.headers["x-tracer-version"] == "1"
    assert answer.headers["x-tracer-trace-id"] == item.trace_id
    assert float(answer.headers["x-tracer-score"]) == item.score


async def test_a_deferred_text_gets_the_teachers_label_and_is_stored_before_the_reply(task: MakeTask) -> None:
    """What the certificate does not cover is the teacher's: its label, its tokens, its trace."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, runtime):
        answer = await client.post(URL, json={"input": DEFERRED, "user": "u1"}, headers={"traceparent": TRACEPARENT})
        (item,) = answer.json()["data"]
        trace = runtime.store.traces.get(item["trace_id"])
    assert (item["label"], item["decision"], item["reason"]) == ("blue", "deferred", "below_threshold")
    assert answer.json()["usage"]["total_tokens"] > 0
    assert trace is not None
    assert (trace.teacher_label, trace.label_source, trace.decision, trace.version) == (
        "blue",
        "teacher",
        "deferred",
        1,
    )
    assert trace.propensity == 1.0
    assert trace.metadata == {"user": "u1", "traceparent": TRACEPARENT, "reason": "below_threshold"}


async def test_what_is_evidence_is_never_answered_from_the_teachers_memory(task: MakeTask, stub_llm: StubLLM) -> None:
    """A text that comes again is paid once; its audits, and whatever comes while the gate is closed, ask anew."""
    teacher = {"type": "openai", "base_url": stub_llm.url, "model": "stub-1"}
    spec = task(traces={"audit_rate": 1.0}, teacher=teacher)
    make_version(spec)
    async with serving(spec) as (client, runtime):

        async def asked_for(text: str) -> int:
            before = stub_llm.count
            for _ in range(2):
                await client.post("/v1/classify", json={"input": text})
                for audit in [*runtime.router.audits._running]:
                    await audit
            return stub_llm.count - before

        assert await asked_for(DEFERRED) == 1
        assert await asked_for(HANDLED) == 2
        close_gate(runtime.store, 1, 20, 3, 50.0)
        runtime.watch.refresh()
        assert await asked_for(DEFERRED) == 2
        assert await asked_for(HANDLED) == 2


async def test_a_list_keeps_its_order_and_one_failure_does_not_fail_the_rest(task: MakeTask, stub_llm: StubLLM) -> None:
    """Mixed decisions come back in place; the text the teacher fails on has an error object instead of a label."""
    spec = task()
    make_version(spec)
    texts = [BLUE[0], DEFERRED, "", HANDLED]
    async with serving(spec) as (client, _):
        stub_llm.script.append("500")
        answer = await client.post(URL, json={"input": texts})
    assert answer.status_code == 200
    items = answer.json()["data"]
    assert [item["index"] for item in items] == [0, 1, 2, 3]
    assert [item.get("label") for item in items] == ["blue", None, None, "red"]
    assert items[1]["error"]["code"] == "teacher_unavailable"
    assert items[2]["error"]["code"] == "invalid_request"
    assert answer.headers["x-tracer-decision"] == "handled"


async def test_probabilities_come_on_request_only(task: MakeTask) -> None:
    """`probs` gives one per label, summing to one; `top_k` the best, best first."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, _):
        plain = (await client.post(URL, json={"input": HANDLED})).json()["data"][0]
        asked = (await client.post(URL, json={"input": HANDLED, "probs": True, "top_k": 2})).json()["data"][0]
    assert "probs" not in plain
    assert set(asked["probs"]) == {"red", "blue"}
    assert sum(asked["probs"].values()) == pytest.approx(1.0, abs=1e-5)
    assert [best["label"] for best in asked["top"]] == ["red", "blue"]


async def test_a_teacher_that_is_down_is_a_503_that_says_when_to_ask_again(task: MakeTask, stub_llm: StubLLM) -> None:
    """A single text without an answer is an error, never a guess, and its row says what happened."""
    spec = task()
    async with serving(spec) as (client, runtime):
        stub_llm.script.append("503")
        answer = await client.post(URL, json={"input": HANDLED})
        runtime.writer.close()
        assert runtime.store.tallies.counts().total.deferred == 1
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    error = ErrorBody.model_validate(answer.json()).error
    assert (error.type, error.code) == ("server_error", "teacher_unavailable")
    assert "127.0.0.1" not in error.message


async def test_without_a_version_everything_defers(task: MakeTask) -> None:
    """No certificate, no surrogate answer: the reason says so and the rate in force is 1."""
    spec = task()
    async with serving(spec) as (client, runtime):
        item = (await client.post(URL, json={"input": HANDLED})).json()["data"][0]
        trace = runtime.store.traces.get(item["trace_id"])
    assert (item["decision"], item["reason"], item["version"], item["score"]) == ("deferred", "no_version", None, None)
    assert trace is not None
    assert (trace.audit_rate, trace.version) == (1.0, None)


async def test_a_list_that_is_longer_than_the_teachers_queue_is_answered(task: MakeTask, stub_llm: StubLLM) -> None:
    """Its texts wait for each other; where the teacher is down it is soon found out, and every text is told."""
    stub_llm.default = "blue"
    teacher = {"type": "openai", "base_url": stub_llm.url, "model": "stub-1", "max_concurrency": 4, "queue": 8}
    async with serving(task(teacher=teacher | {"retries": 0})) as (client, _):
        answered = await client.post("/v1/classify", json={"input": [f"text {i}" for i in range(100)]})
        asked, stub_llm.faults = stub_llm.count, Faults(share=1.0, kinds=("429",), retry_after="20")
        refused = await client.post("/v1/classify", json={"input": [f"other {i}" for i in range(100)]})
    assert [item.get("label") for item in answered.json()["data"]] == ["blue"] * 100
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "20")
    assert asked == 100
    assert stub_llm.count < 110


async def test_pairs_are_two_lists(task: MakeTask, stub_llm: StubLLM) -> None:
    """Where the task classifies pairs, [a, b] is one input and [[a, b], [c, d]] are two; a text is refused."""
    spec = task(input="pair")
    stub_llm.default = "red"
    async with serving(spec) as (client, runtime):
        one = await client.post(URL, json={"input": ["a", "b"]})
        two = await client.post(URL, json={"input": [["a", "b"], ["c", "d"]]})
        text = await client.post(URL, json={"input": "a"})
        stored = [trace.input for trace in runtime.store.traces.labelled()]
    assert (len(one.json()["data"]), len(two.json()["data"]), text.status_code) == (1, 2, 400)
    assert stored[0] == ("a", "b")


JSON = {"content-type": "application/json"}
REFUSED: dict[str, tuple[bytes, dict[str, str], int, str, str | None]] = {
    "not json": (b"{", JSON, 400, "invalid_json", None),
    "not utf-8": (b'{"input": "\xff"}', JSON, 400, "invalid_json", None),
    "half a surrogate": (b'{"input": "\\ud800"}', JSON, 400, "invalid_json", None),
    "too deep": (b'{"input": ' + b"[" * 1_000, JSON, 400, "invalid_json", None),
    "not an object": (b"[]", JSON, 400, "invalid_request", None),
    "no input": (b"{}", JSON, 400, "missing_field", "input"),
    "misspelt": (b'{"input": "a", "top-k": 1}', JSON, 400, "unknown_field", "top-k"),
    "number": (b'{"input": 3}', JSON, 400, "invalid_request", "input"),
    "list of numbers": (b'{"input": [3]}', JSON, 400, "invalid_request", "input"),
    "pair for a text": (b'{"input": [["a", "b"]]}', JSON, 400, "invalid_request", "input[0]"),
    "empty list": (b'{"input": []}', JSON, 400, "invalid_request", "input"),
    "empty text": (b'{"input": " \\n"}', JSON, 400, "invalid_request", None),
    "too many": (b'{"input": ["a", "a", "a", "a", "a"]}', JSON, 400, "batch_too_large", "input"),
    "top_k of 0": (b'{"input": "a", "top_k": 0}', JSON, 400, "invalid_request", "top_k"),
    "other model": (b'{"input": "a", "model": "gpt"}', JSON, 404, "model_not_found", "model"),
    "form": (b"input=a", {"content-type": "application/x-www-form-urlencoded"}, 415, "invalid_request", None),
    "pickle": (b"\x80\x04.", {"content-type": "application/vnd.bentoml+pickle"}, 415, "invalid_request", None),
    "no type": (b'{"input": "a"}', {}, 415, "invalid_request", None),
    "too large": (b'{"input": "' + b"a" * 3000 + b'"}', JSON, 413, "invalid_request", None),
}


async def test_what_is_refused_gets_its_status_and_an_error_object(task: MakeTask) -> None:
    """Every kind of bad request is answered with the status that fits and names the field."""
    spec = task(server={"max_body_mb": 0.002, "max_batch": 4})
    async with serving(spec) as (client, _):
        for name, (content, headers, status, code, param) in REFUSED.items():
            answer = await client.post(URL, content=content, headers=headers)
            error = ErrorBody.model_validate(answer.json()).error
            assert (answer.status_code, error.code, error.param) == (status, code, param), name


async def test_the_short_way_gives_the_answer_of_the_long_one(task: MakeTask) -> None:
    """A body at once before any route is tried, or in parts by the route: status, headers and bytes agree."""
    spec = task(server={"max_body_mb": 0.002, "max_batch": 4})
    make_version(spec)
    asked = {name: (content, headers) for name, (content, headers, *_) in REFUSED.items()}
    asked["handled"] = json.dumps({"input": [HANDLED, BLUE[0]], "user": "é", "probs": True}).encode(), JSON
    asked["deferred"] = json.dumps({"input": DEFERRED}).encode(), JSON | {"traceparent": TRACEPARENT}
    async with serving(spec) as (client, _):
        app = client._transport.app  # type: ignore[attr-defined]

        async def at_once(scope: Scope, receive: Receive, send: Send) -> None:
            body = b""
            while (part := await receive())["more_body"]:
                body += part["body"]
            messages = iter([{**part, "body": body}])

            async def whole() -> Message:
                return next(messages)

            await app({**scope, WHOLE: True}, whole, send)

        ways = httpx.ASGITransport(app=at_once), httpx.ASGITransport(app=app, root_path="/below")
        short, long = (httpx.AsyncClient(transport=way, base_url="http://localhost") for way in ways)
        for name, (content, headers) in asked.items():
            found = await short.post(URL, content=content, headers=headers)
            wanted = await long.post(f"/below{URL}", content=content, headers=headers)
            assert _said(found) == _said(wanted), name
            assert found.status_code in (200, *(refused[2] for refused in REFUSED.values())), name


def _said(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], str]:
    """Return an answer without what is never the same."""
    headers = [(name, ANY if name == "x-tracer-trace-id" else value) for name, value in answer.headers.multi_items()]
    return (
        answer.status_code,
        headers,
        re.sub(r'"created": ?\d+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', "", answer.text),
    )


async def test_a_body_without_a_length_is_cut_off_at_the_limit(task: MakeTask) -> None:
    """A chunked body cannot pass by not declaring its length; little more than the limit is ever read."""
    spec = task(server={"max_body_mb": 0.01})
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1_000):
            read += 1_000
            yield b"a" * 1_000

    async with serving(spec) as (client, _):
        answer = await client.post(URL, content=endless(), headers=JSON)
    assert answer.status_code == 413
    assert read < 100_000
