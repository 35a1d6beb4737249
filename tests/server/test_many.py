"""Several tasks in one process tree."""

import asyncio
import logging
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from tests.server.chat.conftest import running_app
from tests.server.test_hostile import mangled
from tests.server.worlds import DEFERRED, HANDLED, make_task, make_version
from tests.support.stub_llm import StubLLM
from tracer_serve.cli.commands._worker import _prepared
from tracer_serve.config.load import Task
from tracer_serve.errors import SpecError
from tracer_serve.lifecycle.gate_state.closing import close_gate
from tracer_serve.server.http.auth import OPEN
from tracer_serve.server.multi.app import ROUTES, make_apps
from tracer_serve.server.process.task_set import load_tasks, require_one_address
from tracer_serve.server.routes.response_models import ErrorBody
from tracer_serve.storage.versions.opening import store_of

pytestmark = pytest.mark.anyio
MakeTask = Callable[..., Task]
FIRST, SECOND = "first-key-of-a-caller", "second-key-of-another"


@pytest.fixture
def tasks(tmp_path: Path, stub_llm: StubLLM) -> Callable[..., tuple[Task, ...]]:
    """Makes the tasks `colours` and `moods`; keywords are spec fields of both, or of one by its name."""

    def make(colours: dict[str, Any] | None = None, moods: dict[str, Any] | None = None) -> tuple[Task, ...]:
        made = []
        for name, labels, own in (("colours", ["red", "blue"], colours), ("moods", ["glad", "sad"], moods)):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            spec = {"name": name, "labels": labels, "state": str(folder / "state")} | (own or {})
            made.append(make_task(folder, stub_llm, **spec))
        make_version(made[0])
        return tuple(made)

    return make


@asynccontextmanager
async def serving(tasks: tuple[Task, ...]) -> AsyncIterator[httpx.AsyncClient]:
    with running_app(make_apps(tasks, schedule=False)) as url:
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            yield client


async def test_the_models_name_picks_the_task(tasks: Any, stub_llm: StubLLM) -> None:
    """Classify, chat and feedback go to the task that they name; each has labels, versions and traces of its own."""
    stub_llm.default = "sad"
    async with serving(tasks()) as client:
        listed = (await client.get("/v1/models")).json()["data"]
        red = await client.post("/v1/classify", json={"model": "colours", "input": HANDLED})
        sad = await client.post("/v1/classify", json={"model": "moods", "input": "it rains"})
        other = await client.post("/t/moods/v1/classify", json={"input": "it rains", "model": "colours"})
        below = await client.post("/t/moods/v1/classify", json={"input": "it rains"})
        told = {"id": sad.headers["x-tracer-trace-id"], "label": "glad"}
        marked = [await client.post("/v1/feedback", json=told | {"model": name}) for name in ("moods", "colours")]
        async with AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="any") as openai:
            message: Any = {"role": "user", "content": HANDLED}
            chat = await openai.chat.completions.create(model="colours", messages=[message])
        metrics = (await client.get("/metrics")).text
        one = (await client.get("/t/moods/metrics")).text
    assert [model["id"] for model in listed] == ["colours", "moods"]
    assert (red.json()["data"][0]["label"], red.headers["x-tracer-decision"]) == ("red", "handled")
    assert (sad.json()["data"][0]["label"], sad.json()["model"]) == ("sad", "moods")
    assert (other.status_code, below.status_code) == (404, 200)
    assert [answer.status_code for answer in marked] == [200, 400]  # `glad` is no colour
    assert chat.choices[0].message.content == "red"
    assert 'tracer_requests_total{decision="handled",task="colours"} 2.0' in metrics
    assert 'tracer_requests_total{decision="deferred",task="moods"} 2.0' in metrics
    assert metrics.count("# TYPE tracer_requests_total ") == 1
    assert "colours" not in one


async def test_a_call_that_names_no_task_is_known_by_its_form_and_else_forwarded(tasks: Any, stub_llm: StubLLM) -> None:
    """A form of one task is that task's; where two tasks have it, upstream answers; an enum makes no call known."""
    stub_llm.default = "a poem"
    message = {"role": "user", "content": HANDLED}
    schema = {"type": "object", "properties": {"it": {"enum": ["red", "blue"]}}, "required": ["it"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    known = {
        "forms": [{"name": "bare", "prompt": "{text}", "options": {"response_format": wanted}, "same_as": "teacher"}]
    }
    body = {"model": "stub-1", "messages": [message], "response_format": wanted}
    url = "/v1/chat/completions"
    async with serving(tasks(colours=known)) as client:
        own = await client.post(url, json=body)
        foreign = await client.post(url, json={"model": "stub-1", "messages": [message]})
        embedded = await client.post("/v1/embeddings", json={"model": "x", "input": "a"})
        listed = await client.get("/v1/files")
    async with serving(tasks()) as client:
        enum = await client.post(url, json=body)
    async with serving(tasks(colours=known, moods=known | {"labels": ["blue", "red"]})) as client:
        either = await client.post(url, json=body)
    assert own.headers["x-tracer-decision"] == "handled"
    answers = (foreign, embedded, enum, either)
    assert [answer.headers["x-tracer-decision"] for answer in answers] == ["forwarded"] * 4
    reasons = [answer.headers["x-tracer-reason"] for answer in answers]
    assert reasons == ["unknown_options", "other_route", "unknown_prompt", "ambiguous"]
    assert listed.status_code == 405


async def test_errors_say_which_tasks_there_are(tasks: Any) -> None:
    """No model, an unknown one, an unknown prefix, a page of one task asked for without its prefix."""
    async with serving(tasks(colours={"server": {"forward": False}}, moods={"server": {"forward": False}})) as client:
        answers = [
            await client.post("/v1/classify", json={"input": "a"}),
            await client.post("/v1/classify", json={"input": "a", "model": "nope"}),
            await client.post("/v1/classify", content=b"{", headers={"content-type": "application/json"}),
            await client.post("/v1/chat/completions", json={"model": "nope", "messages": []}),
            await client.get("/t/nope/healthz"),
            await client.get("/versions/1/report.html"),
            await client.post("/v1/classify", content=b"{}"),
        ]
    assert [answer.status_code for answer in answers] == [400, 404, 400, 404, 404, 404, 415]
    said = [ErrorBody.model_validate(answer.json()).error.message for answer in answers]
    assert all("colours" in message for message in said[:6])


async def test_each_task_has_its_pages_and_the_overview_leads_to_them(tasks: Any) -> None:
    """Health, report and dashboard are below the prefix; above it there are sums and links, and today's counts."""
    made = tasks()
    async with serving(made) as client:
        for text in (HANDLED, DEFERRED):  # the second's row is written before its reply, and the first's with it
            (await client.post("/t/colours/v1/classify", json={"input": text})).raise_for_status()
        overview = await client.get("/")
        health, ready = (await client.get("/healthz")).json(), (await client.get("/readyz")).json()
        moved = await client.get("/t/colours")
        pages = [await client.get(f"/t/colours/{path}") for path in ("", "healthz", "versions/1/report.html")]
        documented = (await client.get("/docs.json")).json()
        with closing(store_of(made[0])) as store:
            close_gate(store, 1, 20, 3, 50.0)
        async with asyncio.timeout(20):
            while "gate: drift" not in (closed := (await client.get("/")).text):  # noqa: ASYNC110  # seen by a thread
                await asyncio.sleep(0.1)
    assert 'href="t/colours/"' in overview.text
    assert 'href="t/moods/"' in overview.text
    cells = dict(re.findall('data-label="([^"]*)">([^<]*)<', overview.text.split("no version yet")[0]))
    assert (cells["requests today"], cells["handled today"], cells["calls saved"]) == ("2", "50.0 %", "1")
    assert "1 teacher call saved today. No tasks at risk." in overview.text
    assert overview.text.count("needs a look") == 0
    assert re.findall('certified coverage">([^<]*)<', closed) == ["-", "-"]
    assert closed.split("Where do we risk?")[1].index("t/colours/") < closed.split("Where do we risk?")[1].index(
        "t/moods/"
    )
    assert "Gate: drift. Nothing is handled" in closed or "needs a look" in closed
    assert "script-src 'none'" in overview.headers["content-security-policy"]
    assert health["tasks"]["colours"]["version"]["number"] == 1
    assert ready["tasks"]["moods"]["version"] is None
    assert (moved.status_code, moved.headers["location"]) == (307, "/t/colours/")
    assert [page.status_code for page in pages] == [200, 200, 200]
    assert documented["servers"][0]["variables"]["task"]["enum"] == ["colours", "moods"]


async def test_a_key_opens_its_own_task_and_tells_nothing_of_others(
    tasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's key opens nothing but the probes; the admin's key of one task is not the other's."""
    monkeypatch.setenv("FIRST_KEY", FIRST)
    monkeypatch.setenv("SECOND_KEY", SECOND)
    colours = {"server": {"api_keys": ["${FIRST_KEY}"], "admin_key": "${SECOND_KEY}"}}
    keyed = tasks(colours=colours, moods={"server": {"api_keys": ["${SECOND_KEY}"], "admin_key": "${FIRST_KEY}"}})
    async with serving(keyed) as client:
        paths = [route.path.replace("{path:path}", "x") for route in ROUTES] + ["/nope", "/t/nope/x"]
        unknown = {path.replace("{task}", "moods"): None for path in paths}
        for path in unknown:
            unknown[path] = (await client.get(path)).status_code  # type: ignore[assignment]
        first = {"authorization": f"Bearer {FIRST}"}
        listed = (await client.get("/v1/models", headers=first)).json()["data"]
        own = await client.post("/v1/classify", json={"input": HANDLED, "model": "colours"}, headers=first)
        other = await client.post("/v1/classify", json={"input": HANDLED, "model": "moods"}, headers=first)
        below = await client.post("/t/moods/v1/classify", json={"input": HANDLED}, headers=first)
        admin = [await client.post(f"/t/{name}/admin/refit", headers=first) for name in ("colours", "moods")]
    assert {path for path, status in unknown.items() if status == 200} == set(OPEN)
    assert set(unknown.values()) <= {200, 401, 405, 307}
    assert [model["id"] for model in listed] == ["colours"]
    assert [answer.status_code for answer in (own, other, below)] == [200, 404, 403]
    assert [answer.status_code for answer in admin] == [403, 202]


async def test_all_start_or_none(tasks: Any) -> None:
    """A task that cannot start takes the others with it, and leaves nothing open."""
    good, bad = tasks()
    bad.state.mkdir(parents=True)
    (bad.state / "traces.db").mkdir()
    before = set(asyncio.all_tasks())
    app = make_apps((good, bad), schedule=False)
    with pytest.raises(Exception, match=r"traces\.db"):
        async with app.router.lifespan_context(app):
            pytest.fail("it started")
    assert set(asyncio.all_tasks()) == before


def test_all_that_keeps_tasks_from_starting_is_told_by_file(tasks: Any) -> None:
    """Before the start each is prepared: what is wrong with two of three is told together, each by its YAML."""
    good, bad = tasks()
    missing = replace(bad, spec=bad.spec.model_copy(update={"plugins": (Path("nowhere.py"),)}))
    bad.state.mkdir(parents=True)
    (bad.state / "traces.db").mkdir()
    with pytest.raises(SpecError) as caught:
        _prepared((good, bad, missing))
    first, second, last = str(caught.value).splitlines()
    assert first.startswith(f"{bad.file}: {bad.state}/traces.db: ")
    assert second.startswith(f"{bad.file}: ")
    assert "nowhere.py" in second
    assert last == "none of the 3 tasks was started"


def test_a_folder_is_its_yamls_in_order(tasks: Any, tmp_path: Path) -> None:
    """Hidden files and others are left alone; a folder without any is an error."""
    made = tasks()
    folder = tmp_path / "configs"
    folder.mkdir()
    for name, task in zip(("b.yaml", "a.yml"), made, strict=True):
        (folder / name).write_text(task.file.read_text())
    for name in (".c.yaml", "notes.txt"):
        (folder / name).write_text("nothing")
    assert [task.spec.name for task in load_tasks([folder])] == ["moods", "colours"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SpecError, match=r"empty: this folder has no \*\.yaml"):
        load_tasks([empty])


def test_every_bad_yaml_is_named(tasks: Any, tmp_path: Path) -> None:
    """One error tells all of them, and that nothing started."""
    good, bad = tasks()
    bad.file.write_text("name: [")
    with pytest.raises(SpecError, match=r"(?s)moods/task\.yaml: is not YAML.*\n.*gone\.yaml: no such.*\nnone of the 3"):
        load_tasks([good.file, bad.file, tmp_path / "gone.yaml"])


def test_tasks_that_would_mix_are_refused(tasks: Any, tmp_path: Path) -> None:
    """The same name, the same state folder, another plugin by the same name, another address: both files are named."""
    made = tasks(moods={"name": "colours"})
    for word, own in (
        ("name", {"name": "colours"}),
        ("state", {"state": str(tmp_path / "colours" / "state")}),
        ("plugins", {"plugins": ["own.py"]}),
    ):
        made = tasks(colours={"plugins": ["own.py"]}, moods=own)
        for i, task in enumerate(made):
            (task.base / "own.py").write_text(f"x = {i}")
        with pytest.raises(SpecError, match=rf"moods/task\.yaml: {word}: .*colours/"):
            load_tasks([task.file for task in made])
    with pytest.raises(SpecError, match=r"moods/task\.yaml: server\.port: 3001, but .*colours/task\.yaml has 3000"):
        require_one_address(tasks(moods={"server": {"port": 3001}}))


async def test_mangled_bodies_are_the_callers_fault(tasks: Any) -> None:
    """Whatever bytes come before a task is picked, the answer blames the caller, or is one."""
    off = {"server": {"forward": False}}
    chance = random.Random(3)
    paths = ("/v1/classify", "/v1/chat/completions", "/v1/feedback", "/v1/explain", "/v1/embeddings", "/t/colours/v1/x")
    async with serving(tasks(colours=off, moods=off)) as client:
        for i in range(90):
            headers = {"content-type": "application/json"}
            answer = await client.post(paths[i % len(paths)], content=mangled(chance), headers=headers)
            assert 400 <= answer.status_code < 500 or answer.status_code == 200
            if answer.status_code >= 400:
                ErrorBody.model_validate(answer.json())


@pytest.fixture
def record_factory() -> Iterator[None]:
    """Restore the factory of log records afterwards."""
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.usefixtures("record_factory")
async def test_log_lines_name_their_task(tasks: Any, stub_llm: StubLLM, caplog: pytest.LogCaptureFixture) -> None:
    """Where several tasks are served, what is logged for one begins with its name: by requests and by its threads."""
    stub_llm.default = "none of their labels"
    with caplog.at_level("INFO", "tracer_serve"):
        async with serving(tasks()) as client:
            for name in ("moods", "colours"):
                await client.post("/v1/classify", json={"model": name, "input": "unheard of, whoever is asked"})
    said = [record.getMessage() for record in caplog.records if record.name.startswith("tracer_serve")]
    assert all(line.startswith(("colours: ", "moods: ")) for line in said), said
    for name in ("colours", "moods"):
        for what in ("the teacher gave no usable label", "stopping"):
            assert any(line.startswith(f"{name}: {what}") for line in said), said
    assert "colours: version 1 serves" in said
