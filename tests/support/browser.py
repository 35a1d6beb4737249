"""A real browser for pages: headless Chromium, driven by Selenium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import until

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install -e '.[dev]')")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MARKS = [
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (apt: chromium chromium-driver)"
    ),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ARTIFACTS = Path(__file__).parents[1] / "artifacts"
HEIGHT = 900


@contextmanager
def chromium() -> Iterator[Any]:
    """Run a headless Chromium that keeps its console."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


DRAWN = "document.documentElement.dataset.ready === 'true'"


def open_page(driver: Any, url: str, scheme: str = "light", width: int = 1280, drawn: str = DRAWN) -> None:
    """Open a page in a colour scheme and width, and wait until it is drawn; by default, until it says so."""
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    _resize(driver, width, HEIGHT)
    driver.get("about:blank")
    driver.get_log("browser")  # what the page before complained of, its server may be gone, is no concern of this one
    driver.get(url)
    until(lambda: driver.execute_script(f"return {drawn}"))


def text_of(driver: Any, element: str) -> str:
    """The text of an element by id."""
    return str(driver.execute_script("return document.getElementById(arguments[0]).textContent", element))


def click(driver: Any, selector: str) -> None:
    """Bring an element to the middle of the window, clear of the navigation, and click it."""
    element = driver.find_element("css selector", selector)
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def photograph(driver: Any, name: str, width: int) -> None:
    """Keep a picture of the whole page as a test artifact."""
    ARTIFACTS.mkdir(exist_ok=True)
    _resize(driver, width, driver.execute_script("return document.documentElement.scrollHeight"))
    driver.save_screenshot(str(ARTIFACTS / f"{name}.png"))
    _resize(driver, width, HEIGHT)


def is_light(driver: Any) -> bool:
    """Whether the page's background is a light one."""
    background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(map(int, background[4:-1].split(","))) > 380


def complaints(driver: Any) -> list[Any]:
    """What the console has said of errors and warnings since it was asked last."""
    return [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def accessibility_problems(driver: Any) -> list[tuple[str, str, str]]:
    """Serious and critical findings of axe-core on the page: rule, help, and the first element."""
    if not driver.execute_script("return 'axe' in window"):
        driver.execute_script((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = driver.execute_async_script(
        "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(({violations}) => done(violations"
        ".filter((v) => ['serious', 'critical'].includes(v.impact)).map((v) => [v.id, v.help, v.nodes[0].html])))"
    )
    return [tuple(one) for one in found]


def _resize(driver: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
