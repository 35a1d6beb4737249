"""The dashboard in a real browser, on a served task."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.chat.conftest import running_app
from tests.server.worlds import BLUE, DEFERRED, HANDLED, LABELS, RED, make_task, make_version
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
from tests.support.stub_llm import StubLLM, serve
from tests.support.waiting import until
from tracer_serve.config.server import ADMIN_KEY as KEY
from tracer_serve.gate.wording import at_least
from tracer_serve.lifecycle.gate_state.closing import close_gate
from tracer_serve.server.app import make_app
from tracer_serve.storage.traces import new_id
from tracer_serve.storage.versions.opening import store_of
from tracer_serve.types import Trace

pytestmark = MARKS
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
SECRET = "the-operators-own-key"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for the file."""
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A task with two versions, a hostile trace, handled, deferred, audited and failed texts; yields its root."""
    with serve(StubLLM()) as stub, pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY, SECRET)
        price = {"currency": "EUR", "prompt_per_1m": 300.0, "completion_per_1m": 300.0}
        teacher = {"type": "openai", "base_url": stub.url, "model": "stub-1", "retries": 0, "price": price}
        folder = tmp_path_factory.mktemp("dashboard")
        task = make_task(folder, stub, traces={"audit_rate": 1.0}, teacher=teacher, surrogates=["logreg"])
        texts = [HOSTILE, *(RED + BLUE)[1:]]
        rows = [
            Trace(new_id(), datetime.now(UTC), "colours", text, LABELS.get(text, "red"), "import") for text in texts
        ]
        store = store_of(task)
        store.traces.add(rows)
        store.close()
        for _ in range(2):
            make_version(task, ids=[row.id for row in rows])
        with running_app(make_app(task, schedule=False)) as root:
            asked = [HANDLED] * 12 + BLUE * 2 + [DEFERRED] * 5 + [HOSTILE]
            httpx.post(f"{root}/v1/classify", json={"input": asked}, timeout=30).raise_for_status()
            handled = 12 + len(BLUE * 2)
            until(lambda: facts(root)["promise"]["audits"] == handled)
            stub.script.append("500")  # now that no audit is left that could fail instead
            assert httpx.post(f"{root}/v1/classify", json={"input": f"{DEFERRED} again"}).status_code == 503
            until(lambda: facts(root)["recent"]["teacher"]["failed"] == 1)  # its row is written soon
            yield root


def facts(root: str) -> Any:
    """The JSON behind the page."""
    return httpx.get(f"{root}/status.json").json()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 375)])
def test_every_section_renders_without_a_console_error(browser: Any, served: str, scheme: str, width: int) -> None:
    """Charts are drawn, tables filled, nothing overflows sideways, in both schemes and on a telephone."""
    open_page(browser, served, scheme, width)
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('.chart')].map((c) => [c.id, !!c.querySelector('canvas')])"
    )
    assert drawn == [["hours-chart", True], ["agreement-chart", True], ["reasons-chart", True]]
    for section in browser.find_elements("css selector", "main section[id]:not([hidden])"):
        assert section.find_element("tag name", "h2").text
    assert len(browser.find_elements("css selector", "#versions-rows tr")) == 2
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert is_light(browser) == (scheme == "light")
    browser.find_element("id", "try-text").send_keys(HANDLED)
    click(browser, "#try-form button")
    until(lambda: browser.find_elements("css selector", "#try-result .answer"))
    photograph(browser, f"dashboard-{scheme}-{width}", width)
    assert complaints(browser) == []


def test_no_number_is_rounded_into_more_than_it_says(browser: Any, served: str) -> None:
    """An alpha of .975 is not told as 98 %, a bound is never rounded up, almost all is not all."""
    open_page(browser, served)
    said = browser.execute_script("return [exact(.975), exact(.95), atLeast(.9537), atLeast(.95), percent(.99975)]")
    assert said == ["97.5 %", "95 %", "95.3 %", "95.0 %", "99.9 %"]


def test_numbers_on_the_page_equal_the_json(browser: Any, served: str) -> None:
    """Tiles, promise, versions and teacher show what status.json says."""
    open_page(browser, served)
    found = facts(served)
    today, promise, money = found["traffic"]["today"], found["promise"], found["traffic"]["money"]
    assert text_of(browser, "headline").startswith(f"{100 * today['coverage']:.1f} %")
    assert text_of(browser, "coverage") == f"{100 * found['versions'][0]['live']['coverage']:.1f} %"
    assert text_of(browser, "agreement") == f"{100 * promise['agreement']:.1f} %"
    assert f"at least {at_least(promise['lower_bound'])} at any time" in text_of(browser, "agreement-note")
    assert text_of(browser, "promise-words") == f"{found['version']['promise']} Audits watch it live."
    assert text_of(browser, "saved").startswith(("€", "-€"))
    assert float(text_of(browser, "saved").replace("€", "")) == pytest.approx(money["saved"], rel=1e-2)
    assert text_of(browser, "audits") == str(promise["audits"])
    assert f"{today['handled']} handled, {today['deferred']} deferred" in text_of(browser, "today")
    slow = found["recent"]["latency_ms"]["deferred"]["p99"]
    assert f"p99 {f'{slow:.3g} ms' if slow < 1000 else f'{slow / 1000:.3g} s'}" in text_of(browser, "latency-note")
    assert f"failed on 1 of its latest {found['recent']['teacher']['asked']} questions" in text_of(
        browser, "teacher-words"
    )
    hours = browser.execute_script("return drawnHours.made.getOption().series.map((s) => s.data)")
    assert hours[0] == [hour["handled"] for hour in found["traffic"]["hours"]]
    assert hours[1] == [hour["deferred"] for hour in found["traffic"]["hours"]]


def test_a_gate_that_the_yaml_closed_says_so(browser: Any, served: str) -> None:
    """A promise that was raised is told as that, not as one that nothing can break."""
    open_page(browser, served)
    closed = "{version: {}, monitor: null, promise: null, gate: {open: false, reason: 'promise_changed'}}"
    said = browser.execute_script(f"watched({closed}); return $('verdict').textContent")
    assert said == "The YAML promises more than this version was certified for, so nothing is handled."


def test_agreement_is_drawn_over_time_with_its_bound(browser: Any, served: str) -> None:
    """The curve, its table and the facts beside it show the audits of the version that serves, and what they cost."""
    open_page(browser, served)
    found = facts(served)
    drawn = browser.execute_script("return drawnAgreement.made.getOption().series.map((s) => s.data)")
    points = found["agreement"]["points"]
    assert drawn == [[p["agreement"] for p in points], [p["lower_bound"] for p in points]]
    cells = browser.execute_script(
        "return [...document.querySelectorAll('#agreement-rows tr')].map((r) => r.cells[1].textContent)"
    )
    assert cells == [str(p["audits"]) for p in points]
    assert text_of(browser, "audits-today") == str(found["traffic"]["today"]["audits"])
    assert text_of(browser, "audits-cost").startswith("€")
    assert text_of(browser, "proved") == "not yet"
    say = "watched({...facts, promise: {...facts.promise, proved_live_at: 240},"
    say += " agreement: {proved_since: '2026-11-02T10:00+00:00'}}); return $('proved').textContent"
    assert browser.execute_script(say) == "after 240 audits, by 2026-11-02 10:00"


def test_versions_show_model_and_alpha_and_become_cards(browser: Any, served: str) -> None:
    """Columns for both, and on a telephone a card per version."""
    open_page(browser, served, width=390)
    cells = browser.execute_script(
        "return [...document.querySelectorAll('#versions-rows tr:first-child td')].map((cell) =>"
        " [cell.dataset.label, cell.textContent, cell.getBoundingClientRect().left])"
    )
    shown = {name: text for name, text, _ in cells}
    assert (shown["alpha"], shown["certified"]) == ("90 %", "80.0 %")
    assert {"model", "finding", "handled live"} <= shown.keys()
    assert len({left for _, _, left in cells}) == 1


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_serious(browser: Any, served: str, scheme: str, width: int) -> None:
    """In both schemes, and on a telephone."""
    open_page(browser, served, scheme, width)
    assert accessibility_problems(browser) == []


def test_a_version_that_answers_nobody_is_not_said_to_serve(browser: Any, served: str) -> None:
    """While the gate is closed, or in mode observe, tile, headline and table say that nobody is answered."""
    open_page(browser, served)
    browser.execute_script("window.fetch = () => new Promise(() => {})")  # no real numbers in between
    closed, observing = "gate: {open: false, reason: 'drift'}, status: 'ok'", "gate: {open: true}, mode: 'observe'"
    for change, headline, pill, doing in (
        (closed, "The gate is closed: everything goes to the teacher", "gate closed", "gate closed"),
        (observing, "Only observing: everything goes to the teacher", "observes", "observing"),
    ):
        browser.execute_script(f"facts = {{...facts, {change}}}; show()")
        assert text_of(browser, "headline") == headline
        assert ", none now; " in text_of(browser, "coverage-note")
        assert not text_of(browser, "verdict").startswith("Yes")
        assert text_of(browser, "state") == doing
        assert browser.find_element("css selector", "#versions-rows .pill").text == pill


def test_mode_observe_says_what_would_have_been_saved(browser: Any, served: str) -> None:
    """Coverage and money of the answers that were held back, not 0 %."""
    open_page(browser, served)
    browser.execute_script("window.fetch = () => new Promise(() => {})")
    held = "held_back: {texts: 6, agreed: 6, share: 0.6, cost: 0.0123, currency: 'EUR'}"
    browser.execute_script(f"facts = {{...facts, mode: 'observe', traffic: {{...facts.traffic, {held}}}}}; show()")
    assert text_of(browser, "headline").startswith("Only observing: 60.0 % of today's requests would have been")
    assert (text_of(browser, "coverage-name"), text_of(browser, "coverage")) == (
        "Would be answered without the teacher",
        "60.0 %",
    )
    assert (text_of(browser, "saved-name"), text_of(browser, "saved")) == ("Would have saved today", "€0.0123")


def test_calls_that_were_not_recognised_are_shown_with_the_next_step(browser: Any, served: str) -> None:
    """Why, how many, what differs, and what to write; and the audits by form where one is suspended."""
    open_page(browser, served)
    browser.execute_script("window.fetch = () => new Promise(() => {})")
    one = "{reason: 'unknown_prompt', calls: 17, detail: 'another system prompt', labels: {red: 2}, advice: 'name it',"
    one += " form: 'Sort.'}"
    watched = "forms: [{form: 'app', audits: 9, agreements: 3, agreement: 1 / 3, suspended: true}]"
    browser.execute_script(
        f"facts = {{...facts, forwarded: [{one}], promise: {{...facts.promise, {watched}}}}}; show()"
    )
    assert text_of(browser, "forwarded-words").startswith("17 calls went to the teacher's endpoint")
    cells = [cell.text for cell in browser.find_elements("css selector", "#forwarded-rows td")]
    assert cells == ["17", "another system prompt", "red", "name it", "Sort."]
    assert text_of(browser, "forms-watched").startswith("app: 3 of 9 audits agree; suspended")


def test_few_audits_are_not_told_as_a_promise_kept(browser: Any, served: str) -> None:
    """Without an audit, or where those few disagree, the verdict is no yes."""
    open_page(browser, served)
    say = "watched({...facts, promise: {...facts.promise, ...arguments[0]}}); return $('verdict').textContent"
    assert (
        browser.execute_script(say, {"audits": 0}) == "No audit has come in yet, so nothing speaks for or against it."
    )
    assert browser.execute_script(say, {"audits": 2, "agreement": 0.5}).startswith("Too early to tell")


def test_a_near_miss_reads_as_one(browser: Any, served: str) -> None:
    """Score and threshold are shown with as many digits as tell them apart, and no more."""
    open_page(browser, served)
    missed = "{decision: 'deferred', reason: 'below_threshold', score: arguments[0], threshold: 0.912346}"
    for score, shown in (
        (0.5, "score 0.5, certified only from 0.912"),
        (0.91232, "score 0.91232, certified only from 0.91235"),
        (0.912345, "score 0.912345, certified only from 0.912346"),
        (0.912346, "score 0.912, a hair under the threshold"),
    ):
        said = browser.execute_script(f"return reading({missed})", score)
        assert said == f"It would go to the teacher: {shown}."


@pytest.mark.parametrize("width", [360, 640, 1280])
def test_the_keyboard_reaches_everything_and_is_let_go(browser: Any, served: str, width: int) -> None:
    """Tab visits every control in order, each with an outline, and leaves the page; 640 px are 1280 at 200 %."""
    open_page(browser, served, width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    focus = (
        "const at = document.activeElement; return at === document.body ? null"
        " : [[...document.querySelectorAll('*')].indexOf(at), at.id || at.tagName, getComputedStyle(at).outlineStyle]"
    )
    seen: list[list[Any]] = []
    for _ in range(60):
        browser.switch_to.active_element.send_keys("\ue004")
        at = browser.execute_script(focus)
        if at is None or at in seen:
            break
        seen.append(at)
    assert at is None or at == seen[0], "Tab never came out again"
    assert all(style != "none" for _, _, style in seen), seen
    assert {"try-text", "key", "refit", "rollback-to", "rollback", "SUMMARY"} <= {name for _, name, _ in seen}


def test_the_page_updates_itself(browser: Any, served: str) -> None:
    """A text that is asked while the page is open is counted on it without a reload."""
    open_page(browser, served)
    before = facts(served)["traffic"]["today"]["requests"]
    httpx.post(f"{served}/v1/classify", json={"input": HANDLED}).raise_for_status()
    until(lambda: text_of(browser, "today").startswith(f"Today (UTC): {before + 1} requests"))


def test_a_tried_text_is_explained_and_a_script_stays_text(browser: Any, served: str) -> None:
    """Decision, score against threshold, labels and nearest traces; markup in texts is shown, never run."""
    open_page(browser, served)
    browser.find_element("id", "try-text").send_keys(RED[0] + HOSTILE)
    click(browser, "#try-form button")
    card = until(lambda: browser.find_elements("css selector", "#try-result .answer"))[0]
    assert "score" in card.text
    assert HOSTILE in card.text
    assert len(card.find_elements("css selector", ".evidence li")) == 5
    browser.find_element("id", "try-text").clear()
    browser.find_element("id", "try-text").send_keys(DEFERRED)
    click(browser, "#try-form button")
    until(lambda: "certified only from 0.8" in browser.find_element("id", "try-result").text)
    assert browser.title == "colours: live"
    assert complaints(browser) == []


def test_refit_and_rollback_want_the_key(browser: Any, served: str) -> None:
    """Without a key nothing is sent, a wrong one is refused, the right one leaves a request and changes the version."""
    open_page(browser, served)
    click(browser, "#refit")
    assert text_of(browser, "operate-said") == "Type the admin key first."
    browser.find_element("id", "key").send_keys("wrong")
    click(browser, "#refit")
    until(lambda: "does not have the right admin" in text_of(browser, "operate-said"))
    assert not facts(served)["refit_requested"]
    browser.find_element("id", "key").clear()
    browser.find_element("id", "key").send_keys(SECRET)
    click(browser, "#refit")
    until(lambda: facts(served)["refit_requested"])
    until(lambda: "was asked for" in text_of(browser, "refit-words"))
    click(browser, "#rollback")
    until(lambda: facts(served)["version"]["number"] == 1)
    until(lambda: browser.find_elements("css selector", "#versions-rows tr:nth-child(2) .pill"))
    stored = browser.execute_script("return [localStorage.length, sessionStorage.length, document.cookie]")
    assert stored == [0, 0, ""]


def test_a_server_that_is_gone_is_told(browser: Any, served: str) -> None:
    """When the numbers do not come any more the page says so, and keeps the last ones."""
    open_page(browser, served)
    browser.execute_script("window.fetch = () => Promise.reject(new TypeError('gone')); refresh()")
    until(lambda: text_of(browser, "state") == "no answer")
    assert "does not answer" in browser.find_element("id", "problems").text
    assert text_of(browser, "coverage-note").startswith("version ")


@pytest.mark.parametrize("closed", [False, True], ids=["no version", "gate closed"])
def test_a_task_that_handles_nothing_says_so(browser: Any, tmp_path: Path, stub_llm: StubLLM, closed: bool) -> None:
    """Before the first version, and when the gate is closed, no number pretends that anything is handled."""
    task = make_task(tmp_path, stub_llm)
    if closed:
        make_version(task)
        store = store_of(task)
        close_gate(store, 1, audits=82, agreements=60, evidence=33.0)
        store.close()
    with running_app(make_app(task, schedule=False)) as root:
        open_page(browser, root)
        assert text_of(browser, "coverage") == "0 %"
        assert "everything goes to the teacher" in text_of(browser, "headline")
        assert browser.find_element("id", "first").is_displayed() != closed
        if not closed:
            needed = facts(root)["gate"]["repair"]["needed"]
            assert f"0 of about {needed} traces" in text_of(browser, "headline")
            assert text_of(browser, "state") == "collecting traces"
        assert ("60 of 82 audits" in text_of(browser, "problems")) == closed
        assert not browser.find_element("id", "hours").is_displayed()
        assert text_of(browser, "latency-name") == "Median time to an answer"
        assert complaints(browser) == []
