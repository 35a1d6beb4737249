"""The Python API: the server's decisions, traces that certify, reports, and a light import."""

import asyncio
import html
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tracer_serve as ts
from tests.server.chat.conftest import running_app
from tests.support.stub_llm import StubLLM
from tests.support.tasks import banking, write_task
from tracer_serve.errors import BadInputError, EndpointError, TeacherError
from tracer_serve.server.app import make_app


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ts.LocalTask]:
    """A task with a certified version, loaded from its YAML."""
    task = write_task(tmp_path_factory.mktemp("task"), rows=900, traces={"import": ["traces.jsonl"], "audit_rate": 0.0})
    with ts.load(task.file) as loaded:
        assert loaded.fit().certificate.certified
        yield loaded


def test_decisions_are_those_of_the_server(fitted: ts.LocalTask) -> None:
    """The same label, decision, reason and score as over HTTP, with the sync and with the async client."""
    texts = banking(1200)[0][880:]

    async def ask(url: str) -> list[ts.Classified]:
        async with ts.AsyncClient(url) as client:
            return await client.classify(texts)

    local = fitted.classify(texts)
    with running_app(make_app(fitted.task, schedule=False)) as url:
        with ts.Client(url) as client:
            served = client.classify(texts)
        again = asyncio.run(ask(url))
    assert {one.decision for one in local} == {"handled", "deferred"}
    for here, there, later in zip(local, served, again, strict=True):
        assert (here.decision, here.reason, here.version) == (there.decision, there.reason, there.version)
        assert (there.decision, there.reason) == (later.decision, later.reason)
        assert here.score == pytest.approx(there.score, abs=1e-5)
        assert here.label == (there.label if here.decision == "handled" else None)


def test_classify_stores_nothing_and_asks_nobody(fitted: ts.LocalTask) -> None:
    """No trace is written, and an empty text is an error."""
    before = fitted.report().data["basis"]["rows"]
    fitted.classify(["Where is my card?"])
    with pytest.raises(BadInputError, match="text 1 is empty"):
        fitted.classify(["a", " "])
    assert fitted.report().data["basis"]["rows"] == before


def test_route_falls_back_only_for_deferred_texts(fitted: ts.LocalTask) -> None:
    """A certified text is answered locally; others by the function, whose errors reach the caller."""
    texts = banking(1200)[0][880:]
    local = fitted.classify(texts)
    handled = next(text for text, one in zip(texts, local, strict=True) if one.decision == "handled")
    deferred = next(text for text, one in zip(texts, local, strict=True) if one.decision == "deferred")
    asked: list[object] = []

    def fallback(text: object) -> str:
        asked.append(text)
        return "card_arrival"

    assert fitted.route(handled, fallback) == fitted.classify([handled])[0].label
    assert asked == []
    assert fitted.route(deferred, fallback) == "card_arrival"
    assert asked == [deferred]

    def broken(_: object) -> str:
        raise ConnectionError("no network")

    with pytest.raises(TeacherError, match="ConnectionError: no network"):
        fitted.route(deferred, broken)


def test_watched_functions_collect_traces_that_certify(tmp_path: Path) -> None:
    """What a decorated function returns is stored, sync or async; a fit on it certifies."""
    texts, labels = banking(400)
    known = dict(zip(texts, labels, strict=True))
    spec = write_task(
        tmp_path, traces={"audit_rate": 0.0}, labels=sorted(set(labels)), gate={"alpha": 0.6, "delta": 0.1}
    )
    with ts.load(spec.file) as task:

        @ts.watch(task)
        def llm(text: str, default: str = "none of them") -> str:
            """Label a text."""
            return known.get(text, default)

        @ts.watch(task)
        async def llm_async(text: str) -> str:
            return known[text]

        assert [llm(text) for text in texts[:-1]] == labels[:-1]
        assert asyncio.run(llm_async(texts[-1])) == labels[-1]
        assert llm("not a label follows") == "none of them"
        assert llm.__doc__ == "Label a text."
        outcome = task.fit()
        assert outcome.certificate.certified
        assert outcome.traces == len(known)
        assert {point.alpha for point in task.scan([0.6]).points} == {0.6}


def test_a_report_shows_in_a_notebook(fitted: ts.LocalTask) -> None:
    """The report has its data, and its page in a sandboxed frame."""
    report = fitted.report()
    assert report.data["headline"]["certified"]
    frame = report._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts"')
    assert html.escape(report.page) in frame


def test_loading_needs_no_key(stub_llm: StubLLM, tmp_path: Path) -> None:
    """A YAML with unset keys loads and decides: without a version everything is deferred."""
    teacher = {"type": "openai", "model": "m", "base_url": stub_llm.url, "api_key": "${NOT_SET_ANYWHERE}"}
    file = tmp_path / "task.yaml"
    file.write_text(
        f"name: keyless\nteacher: {teacher}\nserver: {{api_keys: ['${{NOT_SET_EITHER}}']}}\nstate: {tmp_path / 's'}\n"
    )
    with ts.load(file) as task:
        (one,) = task.classify(["hello"])
    assert (one.label, one.decision, one.reason, one.version) == (None, "deferred", "no_version", None)
    assert stub_llm.count == 0


def test_clients_say_what_is_wrong() -> None:
    """A server that is not there, and an empty list, which asks nobody."""
    with ts.Client("http://127.0.0.1:9") as client:
        assert client.classify([]) == []
        with pytest.raises(EndpointError, match="cannot be reached"):
            client.classify(["x"])


def test_the_import_is_light() -> None:
    """``import tracer_serve`` loads nothing but the standard library; an unknown name is an AttributeError."""
    code = (
        "import sys, tracer_serve as ts; assert 'load' in ts.__all__ and not hasattr(ts, 'nothing');"
        "assert not {'numpy', 'pydantic', 'httpx', 'yaml', 'sqlalchemy', 'sklearn'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
