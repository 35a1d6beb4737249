"""The page in a real browser."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import Case
from tests.support.browser import (
    MARKS,
    accessibility_problems,
    chromium,
    click,
    complaints,
    is_light,
    open_page,
    photograph,
    text_of,
)
from tests.support.waiting import until
from tracer_serve.report.build import build_report
from tracer_serve.report.glossary import GLOSSARY
from tracer_serve.report.render import GROUPS, render_html

pytestmark = MARKS


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for the file."""
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def page(banking: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the shipped traces as a second version, on disk."""
    report = build_report(banking.task, banking.fitted, banking.texts, [banking.report])
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(render_html(report), encoding="utf-8")
    return file


@pytest.fixture
def visit(browser: Any, page: Path) -> Callable[..., Any]:
    """Open the page in a colour scheme and width; returns the driver once all sections are drawn."""

    def go(scheme: str = "light", width: int = 1280, part: str = "#all") -> Any:
        open_page(browser, page.as_uri() + part, scheme, width)
        return browser

    return go


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 375)])
def test_every_section_renders_without_a_console_error(visit: Callable[..., Any], scheme: str, width: int) -> None:
    """Every chart is drawn, nothing overflows sideways, the hostile text ran nothing, the console is silent."""
    driver = visit(scheme, width)
    drawn = driver.execute_script(
        "return [...document.querySelectorAll('.chart')].map((c) => [c.id, !!c.querySelector('canvas')])"
    )
    assert len(drawn) == 7
    assert all(canvas for _, canvas in drawn), drawn
    labels = driver.execute_script("return [...document.querySelectorAll('.chart')].map((c) => c.ariaLabel)")
    assert not [label for label in labels if "This is a chart" in label], "the library's own words replaced ours"
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.title.startswith("banking")
    assert is_light(driver) == (scheme == "light")
    photograph(driver, f"report-{scheme}-{width}", width)
    assert complaints(driver) == []


def test_a_refusal_with_odd_labels_is_tidy_on_a_telephone(browser: Any, page: Path, tmp_path: Path) -> None:
    """No chart or table without content, no Python on the page, and a label without a space runs out of no card."""
    report = json.loads(page.read_text(encoding="utf-8").split('id="report">')[1].split("</script>")[0])
    report["contrast"][0]["handled"]["runner_up"] = "https://example.org/" + "long" * 40
    for kind in ("disagreed", "deferred"):
        report["slices"][kind]["slices"] = []
    report["why"]["pairs"] = report["plateau"]["labels"] = []
    report["certificate"]["diagnosis"] = {"cause": "rows", "sentence": "Too few.", "numbers": {"rows": 1.0}}
    file = tmp_path / "report.html"
    file.write_text(render_html(report), encoding="utf-8")
    open_page(browser, f"{file.as_uri()}#all", width=390)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert not browser.find_element("id", "slices-chart").is_displayed()
    bodies = "return [...document.querySelectorAll('tbody')].filter((b) => !b.rows.length).map((b) => b.innerHTML)"
    assert browser.execute_script(bodies) == []
    said = text_of(browser, "certificate")
    assert not [word for word in ("{'", "True", "False") if word in said]
    assert complaints(browser) == []


def test_paper_is_light_whatever_the_screen(visit: Callable[..., Any]) -> None:
    """Printed from a dark screen, page and charts take the light palette, and screen colours come back after it."""
    driver = visit("dark")
    ink = (
        "return [colour('wash'), charts.map(({ made }) => made.getOption().xAxis?.[0]?.axisLabel?.color).find(Boolean)]"
    )
    dark = driver.execute_script(ink)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    until(lambda: driver.execute_script(ink) == ["#eef3ff", "#444"])
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    until(lambda: driver.execute_script(ink) == dark)


def test_paper_opens_every_fold_and_takes_at_most_six_sheets(visit: Callable[..., Any]) -> None:
    """Printed, all folds are open and charts as wide as the sheet; they close after it."""
    driver = visit(part="")
    closed = "return document.querySelectorAll('details:not([open])').length"
    before = driver.execute_script(closed)
    assert before
    driver.execute_script(
        "addEventListener('beforeprint', () => { window.closed = document.querySelectorAll('details:not([open])')"
        ".length; }); paper.addEventListener('change', () => { window.wide ??= charts.map(({made, place}) =>"
        " made.getWidth() === place.clientWidth); })"
    )
    pdf = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 6
    assert driver.execute_script("return [window.closed, window.wide.every(Boolean)]") == [0, True]
    assert driver.execute_script(closed) == before


def test_the_first_screen_holds_verdict_losses_and_three_actions(visit: Callable[..., Any], page: Path) -> None:
    """At 1280 by 800 pixels nothing of it is cut; its numbers are those of report.json, as are gain and risk."""
    driver = visit(part="")
    assert driver.execute_script("return document.querySelector('.first').getBoundingClientRect().bottom") <= 800
    data = json.loads(page.read_text(encoding="utf-8").split('id="report">')[1].split("</script>")[0])
    assert driver.find_element("tag name", "h1").text == data["headline"]["title"]
    tiles = [tile.text.split(" %")[0] for tile in driver.find_elements("css selector", ".tile dd:first-of-type")]
    head = data["headline"]
    shown = (head["coverage"], head["agreement"], head["teacher_calls_saved"], head["lowest_recall"]["recall"])
    assert tiles == [f"{100 * share:.1f}" for share in shown]
    lost = [row.text.split()[-3:] for row in driver.find_elements("css selector", "#losses tbody tr")]
    assert lost == [[str(r["handled"] - r["right"]), "of", str(r["rows"])] for r in data["certificate"]["recalls"][:5]]
    said = driver.find_element("id", "next").text
    for action in data["actions"][:3]:
        assert action["title"] in said
        points = "" if action["gain"] is None else f"{100 * action['gain']:+.1f} points of coverage. "
        assert f"Gain {points}{action['gains']}" in said
        assert f"Risk {action['risk']}" in said


def test_terms_are_explained_by_pointer_and_keyboard(visit: Callable[..., Any]) -> None:
    """Focus shows the glossary's explanation, Escape hides it; every term names an explanation that is on the page."""
    driver = visit(part="")
    first = "const term = document.querySelector('.term'); term.focus(); return document.querySelector('.bubble')"
    assert driver.execute_script(f"{first}.textContent") == GLOSSARY["coverage"]
    assert driver.execute_script(f"{first}.hidden") is False
    driver.switch_to.active_element.send_keys("\ue00c")  # Escape
    assert driver.execute_script("return document.querySelector('.bubble').hidden")
    lost = "return [...document.querySelectorAll('.term')].filter((t) => !$(t.getAttribute('aria-describedby'))).length"
    assert driver.execute_script(lost) == 0


def test_a_link_opens_the_fold_that_it_leads_into(visit: Callable[..., Any]) -> None:
    """A section's address opens its fold alone, `#all` opens every one, and each chart is then as wide as its place."""
    driver = visit(part="#labels")
    opened = "return [...document.querySelectorAll('details.group[open]')].map((fold) => fold.id)"
    assert driver.execute_script(opened) == ["by-label"]
    driver = visit(part="#all")
    assert len(driver.execute_script(opened)) == len(GROUPS) + 1
    fitting = "return charts.every(({made, place}) => made.getWidth() === place.clientWidth && place.clientWidth > 0)"
    assert driver.execute_script(fitting)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_serious_on_the_first_screen(visit: Callable[..., Any], scheme: str, width: int) -> None:
    """In both schemes, and on a telephone."""
    assert accessibility_problems(visit(scheme, width, part="")) == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_whole_report(visit: Callable[..., Any], scheme: str, width: int) -> None:
    """With every part open."""
    assert accessibility_problems(visit(scheme, width)) == []


def test_on_a_telephone_rows_are_cards_with_named_cells(visit: Callable[..., Any]) -> None:
    """At 390 px a row of the table of labels is one above the other, each cell with the name of its column."""
    driver = visit(width=390)
    cells = driver.execute_script(
        "return [...document.querySelectorAll('#labels-rows tr:first-child td')].map((cell) =>"
        " [cell.dataset.label, cell.getBoundingClientRect().left])"
    )
    heights = driver.execute_script(
        "return [...document.querySelectorAll('#losses td')].map((cell) => cell.getBoundingClientRect().height)"
    )
    assert max(heights) < 40, "a bar and its number share a line"
    assert [name for name, _ in cells][:3] == ["rows", "handled", "recall"]
    assert len({left for _, left in cells}) == 1


def test_a_filter_finds_what_is_folded(visit: Callable[..., Any]) -> None:
    """A card behind "Show more" is found by its text, and folded away again with the filter."""
    driver = visit()
    last = "return document.querySelector('#cards-list > li:last-child')"
    text = driver.execute_script(f"{last}.querySelector('.quote').textContent")[1:-1]
    shown = f"{last}.checkVisibility()"
    assert not driver.execute_script(shown)
    field = driver.find_element("css selector", "[data-filters=cards-list]")
    field.send_keys(text)
    assert driver.execute_script(shown)
    driver.execute_script("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", field)
    assert not driver.execute_script(shown)


def test_alpha_can_be_moved_and_the_numbers_follow(visit: Callable[..., Any], page: Path) -> None:
    """Each stop of the slider shows what report.json says for that alpha; the button leads back."""
    driver = visit()
    text = page.read_text(encoding="utf-8")
    data = json.loads(text.split('id="report">')[1].split("</script>")[0])
    what, money = data["whatif"], data["money"]
    for stop in (0, what["own"] // 2, what["own"]):
        driver.execute_script(
            "const s = document.getElementById('alpha'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
            stop,
        )
        assert text_of(driver, "alpha-now") == str(what["alpha"][stop])
        assert text_of(driver, "alpha-coverage") == f"{100 * what['coverage'][stop]:.1f} %"
        saved = money["all_teacher_per_1000"] * what["teacher_calls_saved"][stop]
        assert float(text_of(driver, "alpha-money").split()[0]) == pytest.approx(saved, rel=1e-2)
    driver.find_element("id", "alpha").send_keys("\ue012")  # the left arrow key
    assert text_of(driver, "alpha-now") == str(what["alpha"][what["own"] - 1])
    click(driver, "#alpha-reset")
    assert text_of(driver, "alpha-now") == str(what["alpha"][what["own"]])


def test_filters_colours_sorting_and_hover_work(visit: Callable[..., Any]) -> None:
    """The map finds a word and shows a text under the pointer, a table sorts, the slices switch, nothing complains."""
    driver = visit()
    driver.find_element("id", "map-search").send_keys("card")
    assert int(text_of(driver, "map-count").split()[0].replace(",", "")) > 0
    assert driver.find_elements("css selector", "#map-found li")
    driver.find_element("id", "map-search").clear()
    click(driver, "#map-mode [value=label]")
    click(driver, "#slices-event [value=deferred]")
    assert driver.find_element("css selector", "[data-event=deferred]").is_displayed()
    click(driver, "#labels th:nth-child(2) button")
    rows = driver.execute_script(
        "return [...document.querySelectorAll('#labels-rows td:nth-child(2)')].map((c) => +c.dataset.value)"
    )
    assert rows == sorted(rows, reverse=True)
    hovered = driver.execute_script(
        "const c = charts.find((c) => c.made.getDom().id === 'map-chart').made;"
        "c.dispatchAction({type: 'showTip', seriesIndex: 1, dataIndex: 0});"
        "return new Promise((done) => setTimeout(() => done(c.getDom().querySelector('.tip')?.textContent), 200))"
    )
    assert "teacher:" in hovered
    assert complaints(driver) == []
