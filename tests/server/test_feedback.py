"""POST /v1/feedback."""

from collections.abc import Callable

import pytest

from tests.server.worlds import DEFERRED, HANDLED, make_version, serving
from tracer_serve.config.load import Task
from tracer_serve.server.routes.feedback import KEYS
from tracer_serve.server.routes.response_models import ErrorBody
from tracer_serve.storage.traces import new_id

pytestmark = pytest.mark.anyio
MakeTask = Callable[..., Task]
URL = "/v1/feedback"


async def test_a_persons_label_stands(task: MakeTask) -> None:
    """It replaces the teacher's, is kept as a person's, and works right after a handled answer, by any of its ids."""
    spec = task()
    make_version(spec)
    async with serving(spec) as (client, runtime):
        for text, label in ((DEFERRED, "red"), (HANDLED, "blue")):
            item = (await client.post("/v1/classify", json={"input": text})).json()["data"][0]
            answer = await client.post(URL, json={"id": item["trace_id"], "label": label})
            assert answer.json() == {"id": item["trace_id"], "object": "feedback", "label": label}
            trace = runtime.store.traces.get(item["trace_id"])
            assert trace is not None
            assert (trace.teacher_label, trace.label_source) == (label, "human")
        body = {"model": "colours", "messages": [{"role": "user", "content": HANDLED}]}
        for route, asked in (("/v1/chat/completions", body), ("/v1/classify", {"input": HANDLED})):
            given = (await client.post(route, json=asked)).json()["id"]
            assert (await client.post(URL, json={"id": given, "label": "red"})).status_code == 200


async def test_what_is_no_answer_or_no_label_is_refused(task: MakeTask) -> None:
    """404 for an id that was never given out, 400 for a label outside the set; nothing is stored."""
    async with serving(task()) as (client, runtime):
        unknown = [await client.post(URL, json={"id": given, "label": "red"}) for given in (new_id(), "x", "chatcmpl-")]
        item = (await client.post("/v1/classify", json={"input": DEFERRED})).json()["data"][0]
        wrong = await client.post(URL, json={"id": item["trace_id"], "label": "green"})
        trace = runtime.store.traces.get(item["trace_id"])
    assert [answer.status_code for answer in unknown] == [404] * 3
    assert (wrong.status_code, ErrorBody.model_validate(wrong.json()).error.param) == (400, "label")
    assert trace is not None
    assert trace.label_source == "teacher"


async def test_a_late_retry_does_not_undo_a_later_correction(task: MakeTask) -> None:
    """The same Idempotency-Key is done once; with another body it is a conflict. Keys are kept as hashes."""
    async with serving(task()) as (client, runtime):
        item = (await client.post("/v1/classify", json={"input": DEFERRED})).json()["data"][0]
        first = {"id": item["trace_id"], "label": "red"}
        once = await client.post(URL, json=first, headers={"idempotency-key": "k-1"})
        await client.post(URL, json=first | {"label": "blue"}, headers={"idempotency-key": "k-2"})
        again = await client.post(URL, json=first, headers={"idempotency-key": "k-1"})
        other = await client.post(URL, json=first | {"label": "blue"}, headers={"idempotency-key": "k-1"})
        trace, kept = runtime.store.traces.get(item["trace_id"]), runtime.store.values.get(KEYS)
    assert (once.status_code, again.status_code, again.json()) == (200, 200, once.json())
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert trace is not None
    assert trace.teacher_label == "blue"
    assert len(kept) == 2
    assert "k-1" not in str(kept)
