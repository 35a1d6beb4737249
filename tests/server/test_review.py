"""The review queue: what waits for a person, who may judge it, by keyboard, and through labelling tools."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.server.chat.conftest import running_app
from tests.server.worlds import BLUE, DEFERRED, RED, make_task, make_version, serving
from tests.support.browser import MARKS, accessibility_problems, chromium, open_page, text_of
from tests.support.stub_llm import StubLLM, serve
from tests.support.waiting import until
from tracer_serve.config.load import Task
from tracer_serve.server.app import make_app
from tracer_serve.server.review.exchange import judgements
from tracer_serve.storage.traces import new_id
from tracer_serve.storage.versions.opening import store_of
from tracer_serve.types import Trace

MakeTask = Callable[..., Task]
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">"
KEYS = {"ASKS": "asks-key-of-sixteen", "CORRECTS": "corrects-key-of-sixteen", "OPERATES": "operates-key-of-sixteen"}


def fill(task: Task, key_id: str | None = None) -> dict[str, str]:
    """Write a version and a row of each kind, and rows that wait for nobody; returns ids by kind."""

    def row(text: str, teacher: str | None, source: Any, surrogate: str | None, decision: Any) -> Trace:
        facts = {"decision": decision, "version": 1, "key_id": key_id}
        return Trace(new_id(), datetime.now(UTC), "colours", text, teacher, source, surrogate, score=0.9, **facts)

    rows = {
        "card": row(RED[1], "blue", "import", None, None),
        "audit": row(f"{RED[0]} {HOSTILE}", "blue", "audit", "red", "handled"),
        "new_label": row("a green one", "green", "teacher", "blue", "deferred"),
        "difference": row(BLUE[0], "red", "teacher", "blue", "deferred"),
    }
    settled = [
        row(RED[2], "red", "audit", "red", "handled"),
        row(RED[3], None, None, "red", "handled"),
        row(BLUE[1], "red", "human", "blue", "deferred"),
    ]
    store = store_of(task)
    store.traces.add([*rows.values(), *settled])
    store.close()
    cards = [
        {"id": rows["card"].id, "surrogate": "red", "suspicion": 0.9},
        {"id": settled[2].id, "surrogate": "blue", "suspicion": 0.8},
        {"id": new_id(), "surrogate": "blue", "suspicion": 0.8},
        {"id": settled[0].id, "surrogate": "blue", "suspicion": 0.1},
    ]
    make_version(task, data=json.dumps({"schema": 1, "cards": {"cards": cards}}))
    return {kind: trace.id for kind, trace in rows.items()}


@pytest.mark.anyio
async def test_each_kind_is_queued_once_most_urgent_first_and_leaves_with_a_judgement(task: MakeTask) -> None:
    """Audits that disagreed, new labels, cards and differences; what a person labelled, or agrees, does not wait."""
    spec = task(labels=None)
    ids = fill(spec)
    async with serving(spec) as (client, runtime):
        found = (await client.get("/review.json")).json()
        for item in found["items"][:2]:
            await client.post("/v1/feedback", json={"id": item["id"], "label": item["surrogate"]})
        left = (await client.get("/review.json")).json()["items"]
        judged = runtime.store.traces.get(ids["audit"])
    assert [(item["kind"], item["id"]) for item in found["items"]] == [
        (kind, ids[kind]) for kind in ("audit", "new_label", "card", "difference")
    ]
    assert found["labels"] == ["blue", "green", "red"]
    assert found["items"][2]["suspicion"] == 0.9
    assert [item["kind"] for item in left] == ["card", "difference"]
    assert judged is not None
    assert (judged.teacher_label, judged.label_source, judged.metadata["replaced"]["label"]) == ("red", "human", "blue")


@pytest.mark.anyio
async def test_the_queue_takes_the_right_feedback_and_shows_own_rows_only(
    task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that may only ask is refused; another one's rows are not listed; an operator sees all; it can be off."""
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    corrects = {"key": "${CORRECTS}", "rights": ["ask", "feedback"]}
    keys = ["${ASKS}", corrects, {"key": "${OPERATES}", "rights": ["admin"]}]
    spec = task(server={"api_keys": keys}, labels=None)
    ids = fill(spec, key_id="another1")

    async def seen(client: httpx.AsyncClient, name: str, path: str = "/review.json") -> httpx.Response:
        return await client.get(path, headers={"authorization": f"Bearer {KEYS[name]}"})

    async with serving(spec) as (client, _):
        paths = ("/review", "/review.json", "/review.jsonl")
        refused = [(await seen(client, "ASKS", path)).status_code for path in paths]
        anybody = (await client.get("/review")).status_code
        own, every = await seen(client, "CORRECTS"), await seen(client, "OPERATES")
        line = json.dumps({"id": ids["audit"], "label": "red"})
        headers = {"authorization": f"Bearer {KEYS['CORRECTS']}", "content-type": "application/x-ndjson"}
        foreign = (await client.post("/review.jsonl", content=line, headers=headers)).json()
    async with serving(task(server={"feedback": False})) as (client, _):
        off = (await client.get("/review.json")).json()["error"]["code"]
    assert (refused, anybody, off) == ([403, 403, 403], 401, "feedback_off")
    assert own.json()["items"] == []
    assert {item["id"] for item in every.json()["items"]} == set(ids.values())
    assert (foreign["corrected"], foreign["refusals"][0]["line"]) == (0, 1)


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["label-studio", "argilla"])
async def test_a_labelling_tool_gets_the_queue_and_brings_judgements_back(task: MakeTask, form: str) -> None:
    """A line per row with both labels; the tool's own export is read back, unjudged rows are left as they are."""
    spec = task(labels=["red", "blue", "green"])
    ids = fill(spec)
    async with serving(spec) as (client, runtime):
        sent = await client.get("/review.jsonl", params={"format": form})
        rows = [json.loads(line) for line in sent.text.splitlines()]
        for row in rows[:2]:
            if form == "argilla":
                row["responses"] = {"label": [{"value": "green", "user_id": "u"}]}
            else:
                row["annotations"] = [{"was_cancelled": False, "result": row["predictions"][0]["result"]}]
        rows.append({"id": ids["card"], "label": "purple"})
        lines = "\n".join([*map(json.dumps, rows), "no json"])
        headers = {"content-type": "application/x-ndjson"}
        told = (await client.post("/review.jsonl", content=lines, headers=headers)).json()
        array = await client.post("/review.jsonl", json=rows[:1])
        wrong = [
            (await client.get("/review.jsonl", params={"format": "csv"})).status_code,
            (await client.post("/review.jsonl", content=lines, headers={"content-type": "text/plain"})).status_code,
        ]
        kept = [runtime.store.traces.get(ids[kind]) for kind in ("audit", "new_label", "difference")]
    assert sent.headers["content-disposition"] == f'attachment; filename="colours-{form}.jsonl"'
    first = rows[0]["data"] if form == "label-studio" else {**rows[0]["fields"], "trace_id": rows[0]["id"]}
    assert first["trace_id"] == ids["audit"]
    assert HOSTILE in first["text"]
    assert (told["corrected"], told["refused"]) == (2, 2)
    assert [refusal["line"] for refusal in told["refusals"]] == [5, 6]
    assert array.json() == {"corrected": 1, "refused": 0, "refusals": []}
    labels = ["green", "green"] if form == "argilla" else ["red", "blue"]
    assert [(trace.teacher_label, trace.label_source) for trace in kept if trace] == [
        *((label, "human") for label in labels),
        ("red", "teacher"),
    ]
    assert wrong == [400, 415]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"[", [(1, None, "this line is no JSON object")]),
        (b"\n\n3", [(3, None, "this line is no JSON object")]),
        (b'{"label": "red"}', [(1, None, "this row has no trace id (id, or data.trace_id)")]),
        (b'{"id": "x", "annotations": [{"was_cancelled": true}], "data": {}}', []),
        (b'{"id": "x", "fields": {}, "responses": {"label": []}}', []),
        (b'{"id": "x", "annotations": 3, "data": 4}', []),
    ],
)
def test_odd_lines_are_named_and_unjudged_rows_left_out(body: bytes, found: list[Any]) -> None:
    """Whatever a file holds, the reader names the line or skips it."""
    assert list(judgements(body)) == found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for the file."""
    with chromium() as driver:
        yield driver


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A served task with a queue of four."""
    with serve(StubLLM()) as stub:
        task = make_task(tmp_path_factory.mktemp("review"), stub, labels=["red", "blue", "green"])
        fill(task)
        with running_app(make_app(task, schedule=False)) as url:
            yield url


@pytest.mark.skipif(MARKS[0].args[0], reason="needs chromium")
def test_a_person_judges_with_the_keyboard_alone(browser: Any, root: str) -> None:
    """1 and 2 choose, s skips, b goes back, o opens the labels; the count falls, and markup stays text."""
    open_page(browser, f"{root}/review")
    press = browser.switch_to.active_element.send_keys
    until(lambda: text_of(browser, "count") == "4 texts wait for a judgement")
    assert HOSTILE in text_of(browser, "text")
    press("2")
    until(lambda: text_of(browser, "count").startswith("3 texts"))
    assert text_of(browser, "facts").startswith("2 of 4")
    browser.switch_to.active_element.send_keys("s")
    assert text_of(browser, "facts").startswith("3 of 4")
    browser.switch_to.active_element.send_keys("o")
    browser.switch_to.active_element.send_keys("gre", "\ue007")  # and Enter
    until(lambda: text_of(browser, "count").startswith("2 texts"))
    browser.switch_to.active_element.send_keys("b")
    until(lambda: "You said green" in text_of(browser, "facts"))
    left = httpx.get(f"{root}/review.json").json()["items"]
    assert [item["kind"] for item in left] == ["new_label", "difference"]
    assert browser.title == "colours: review"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
@pytest.mark.skipif(MARKS[0].args[0], reason="needs chromium")
def test_axe_finds_nothing_serious(browser: Any, root: str, scheme: str, width: int) -> None:
    """In both schemes, and on a telephone, where nothing overflows sideways."""
    open_page(browser, f"{root}/review", scheme, width)
    assert accessibility_problems(browser) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_text_of_a_deferred_row_is_in_no_url(root: str) -> None:
    """The page carries no row, so that neither a cache nor a log holds a text."""
    page = httpx.get(f"{root}/review")
    assert DEFERRED not in page.text
    assert HOSTILE not in page.text
    assert page.headers["cache-control"] == "no-store"
