"""The page in a real browser."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import Case
from tracer_serve.report.build import build_report
from tracer_serve.report.render import render_html

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install -e '.[dev]')")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (apt: chromium chromium-driver)"
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ARTIFACTS = Path(__file__).parents[1] / "artifacts"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium that keeps its console."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


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

    def go(scheme: str = "light", width: int = 1280) -> Any:
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(page.as_uri())
        until(lambda: browser.execute_script("return document.documentElement.dataset.ready === 'true'"))
        return browser

    return go


def until(condition: Callable[[], Any]) -> Any:
    """Wait for something to hold."""
    deadline = time.monotonic() + 10
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to hold within ten seconds"
        time.sleep(0.02)
    return found


def value_of(driver: Any, element: str) -> str:
    """The text of an element by id."""
    return str(driver.execute_script("return document.getElementById(arguments[0]).textContent", element))


def click(driver: Any, selector: str) -> None:
    """Bring an element to the middle of the window, clear of the navigation, and click it."""
    element = driver.find_element("css selector", selector)
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 375)])
def test_every_section_renders_without_a_console_error(visit: Callable[..., Any], scheme: str, width: int) -> None:
    """Every chart is drawn, nothing overflows sideways, the hostile text ran nothing, the console is silent."""
    driver = visit(scheme, width)
    drawn = driver.execute_script(
        "return [...document.querySelectorAll('.chart')].map((c) => [c.id, !!c.querySelector('canvas')])"
    )
    assert len(drawn) == 7
    assert all(canvas for _, canvas in drawn), drawn
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.title.startswith("banking")
    background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) > 380) == (scheme == "light")
    ARTIFACTS.mkdir(exist_ok=True)
    height = driver.execute_script("return document.documentElement.scrollHeight")
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    driver.save_screenshot(str(ARTIFACTS / f"report-{scheme}-{width}.png"))
    assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


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
        assert value_of(driver, "alpha-now") == str(what["alpha"][stop])
        assert value_of(driver, "alpha-coverage") == f"{100 * what['coverage'][stop]:.1f} %"
        saved = money["all_teacher_per_1000"] * what["teacher_calls_saved"][stop]
        assert float(value_of(driver, "alpha-money").split()[0]) == pytest.approx(saved, rel=1e-2)
    driver.find_element("id", "alpha").send_keys("\ue012")  # the left arrow key
    assert value_of(driver, "alpha-now") == str(what["alpha"][what["own"] - 1])
    click(driver, "#alpha-reset")
    assert value_of(driver, "alpha-now") == str(what["alpha"][what["own"]])


def test_filters_colours_sorting_and_hover_work(visit: Callable[..., Any]) -> None:
    """The map finds a word and shows a text under the pointer, a table sorts, the slices switch, nothing complains."""
    driver = visit()
    driver.find_element("id", "map-search").send_keys("card")
    assert int(value_of(driver, "map-count").split()[0].replace(",", "")) > 0
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
    assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
