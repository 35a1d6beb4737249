"""Two versions side by side."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.chat.conftest import running_app
from tests.server.worlds import make_task, make_version, serving
from tests.support.browser import MARKS, accessibility_problems, chromium, open_page
from tests.support.stub_llm import StubLLM
from tracer_serve.config.load import Task
from tracer_serve.report.compare import comparison_of
from tracer_serve.server.app import make_app
from tracer_serve.server.multi.app import make_apps

MakeTask = Callable[..., Task]


def report(coverage: float, recall: float, **more: Any) -> dict[str, Any]:
    """A small report.json."""
    lowest = {"label": "<red>", "recall": recall, "rows": 40}
    headline = {"certified": True, "basis": "proved", "coverage": coverage, "agreement": 0.97, "lower_bound": 0.95}
    labels = [{"label": "<red>", "rows": 40, "recall": recall, "handled_share": 0.5} | more]
    return {
        "schema": 1,
        "task": "colours",
        "created": "2026-11-01T00:00:00+00:00",
        "basis": {"rows": 400},
        "headline": headline | {"teacher_calls_saved": 0.9 * coverage, "lowest_recall": lowest},
        "money": None,
        "policy": {"surrogate": "blend", "acceptor": None},
        "certificate": {"alpha": 0.95},
        "classes": {"rows": [*labels, {"label": "blue", "rows": 9, "recall": 1.0, "handled_share": 0.2}]},
    }


OLD, NEW = report(0.6, 0.9), report(0.7, 0.625)


def test_the_comparison_leads_with_the_label_that_loses_most() -> None:
    """Sentence, facts and rows are those of the two reports; a label that one does not know has no change."""
    found = comparison_of((1, OLD), (2, NEW))
    assert found["sentence"] == (
        "Version 2 handles 10.0 points more of the traffic than version 1, and '<red>' loses most: its recall falls"
        " from 90.0 % to 62.5 %."
    )
    assert [row["label"] for row in found["labels"]] == ["<red>", "blue"]
    assert found["labels"][0]["change"] == pytest.approx(-0.275)
    assert [v["coverage"] for v in found["versions"]] == [0.6, 0.7]
    other = comparison_of((1, OLD), (2, report(0.6, 0.9, label="new")))
    assert other["sentence"] == "Version 2 handles as much as version 1, and no label loses recall."
    assert {row["label"]: row["change"] for row in other["labels"]} == {"blue": 0.0, "new": None, "<red>": None}


def make_versions(task: Task) -> None:
    """Write two versions with these reports."""
    for one in (OLD, NEW):
        make_version(task, data=json.dumps(one))


@pytest.mark.anyio
async def test_the_page_shows_both_and_refuses_what_is_not_there(task: MakeTask) -> None:
    """By default the newest two; an unknown version is a 404, a changed report is not shown, and no script runs."""
    spec = task()
    async with serving(spec) as (client, runtime):
        early = await client.get("/versions/compare")
        make_versions(spec)
        shown, asked = await client.get("/versions/compare"), await client.get("/versions/compare?a=2&b=1")
        wrong = [(await client.get(f"/versions/compare?a={a}&b=1")).status_code for a in ("9", "x", "-1")]
        file = runtime.versions.folder(2) / "report.json"
        file.chmod(0o644)
        file.write_text("{}", encoding="utf-8")
        changed = await client.get("/versions/compare")
        make_version(spec, data=json.dumps({"schema": 1, "headline": {}}))
        older = await client.get("/versions/compare?a=1&b=3")
    assert (older.status_code, older.json()["error"]["message"][:9]) == (404, "one of th")
    assert "handles 10.0 points more" in shown.text
    assert "handles 10.0 points less" in asked.text
    assert re.findall('data-label="version [12]">([\\d.]+) %<', shown.text)[:2] == ["60.0", "70.0"]
    assert "<red>" not in shown.text
    assert "script-src 'none'" in shown.headers["content-security-policy"]
    assert (early.status_code, wrong, changed.status_code) == (404, [404, 404, 404], 500)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for the file."""
    with chromium() as driver:
        yield driver


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
@pytest.mark.skipif(MARKS[0].args[0], reason="needs chromium")
def test_axe_finds_nothing_serious(browser: Any, tmp_path: Path, stub_llm: StubLLM, scheme: str, width: int) -> None:
    """In both schemes, and on a telephone, where nothing overflows sideways."""
    task = make_task(tmp_path, stub_llm)
    make_versions(task)
    with running_app(make_app(task, schedule=False)) as root:
        open_page(browser, f"{root}/versions/compare", scheme, width, drawn="document.readyState === 'complete'")
        assert accessibility_problems(browser) == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
@pytest.mark.skipif(MARKS[0].args[0], reason="needs chromium")
def test_the_page_of_several_tasks_is_accessible_too(
    browser: Any, tmp_path: Path, stub_llm: StubLLM, scheme: str, width: int
) -> None:
    """Its rows are cards on a telephone, and axe finds nothing serious."""
    tasks = []
    for name in ("colours", "moods"):
        (tmp_path / name).mkdir()
        tasks.append(make_task(tmp_path / name, stub_llm, name=name))
    make_version(tasks[0])
    with running_app(make_apps(tasks, schedule=False)) as root:
        open_page(browser, root, scheme, width, drawn="document.readyState === 'complete'")
        assert [head.text for head in browser.find_elements("css selector", "h2")] == [
            "Where do we save?",
            "Where do we risk?",
        ]
        assert accessibility_problems(browser) == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
