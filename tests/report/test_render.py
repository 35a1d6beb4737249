"""The page: nothing from elsewhere, nothing that a text can start."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from tests.report.conftest import HOSTILE, Case
from tracer_serve.report.render import asset, content_security_policy, render_html


class Page(HTMLParser):
    """The tags, the inline scripts and the links of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: dict[str, list[str]] = {"script": [], "style": []}
        self.inside: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag if tag in self.blocks else None
        if self.inside:
            self.blocks[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = None if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.blocks[self.inside][-1] += data


def test_hostile_text_is_text(small: Case) -> None:
    """A text that closes the script and opens its own adds no element and keeps its wording."""
    page = render_html(small.report)
    found = Page(page)
    assert len(found.blocks["script"]) == 3
    assert not [tag for tag, _ in found.tags if tag in ("img", "iframe", "link", "base", "object")]
    data = json.loads(found.blocks["script"][0])
    assert data == small.report
    assert any(HOSTILE in card["text"] for card in data["cards"]["cards"])


def test_nothing_comes_from_another_host_and_no_attribute_runs(small: Case) -> None:
    """No src, no style or on... attribute, and links stay on the page."""
    for _, attributes in Page(render_html(small.report)).tags:
        assert not {"src", "style"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")


def test_policy_names_every_block_by_its_hash_and_allows_nothing_else(small: Case) -> None:
    """The policy's hashes are those of the scripts and of the style; no unsafe source is in it."""
    page = render_html(small.report)
    policy, found = content_security_policy(page), Page(page)
    for block in [*found.blocks["script"][1:], *found.blocks["style"]]:
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_a_page_without_a_policy_is_refused() -> None:
    """A page that is not ours gives an error, not an empty policy."""
    with pytest.raises(ValueError, match="not written by render_html"):
        content_security_policy("<html></html>")


def test_numbers_on_the_page_are_those_of_the_json(small: Case) -> None:
    """The headline's tiles and every label's row show what report.json says."""
    page, headline = render_html(small.report), small.report["headline"]
    tiles = re.findall(r"<dd>([\d.]+) %</dd>", page)
    shares = ("coverage", "agreement", "teacher_calls_saved")
    assert tiles[:3] == [f"{100 * headline[name]:.1f}" for name in shares]
    for row in small.report["certificate"]["recalls"][:5]:
        assert f"{row['handled'] - row['right']} of {row['rows']}" in page
    for row in small.report["classes"]["rows"]:
        if row["handled_share"] is not None:
            assert f'data-value="{row["handled_share"]}"' in page


def test_an_abstaining_version_says_why(small: Case) -> None:
    """A version without a certificate has a page that says so."""
    report = json.loads(json.dumps(small.report))
    nothing = dict.fromkeys(("agreement", "lower_bound", "promise", "warning", "lowest_recall"))
    report["headline"] |= {"certified": False, "title": "Too few traces"} | nothing
    report["certificate"] |= {"walk": [], "threshold": None}
    page = render_html(report)
    assert "not certified" in page
    assert "no bound: nothing is certified" in page
    assert "no label loses anything" in page


def test_a_cascade_shows_what_each_stage_is_asked_handles_and_costs(small: Case) -> None:
    """Shares as percentages, CPU in milliseconds a row; a policy of one stage has no such table."""
    stage = {
        "surrogate": "knn",
        "acceptor": "margin",
        "n": 60,
        "agreements": 59,
        "share": 0.6,
        "asked": 1.0,
        "cpu_ms": 0.04,
        "embed_ms": 0.2,
    }
    dear = {**stage, "surrogate": "encoder", "n": 30, "agreements": 28, "share": 0.3, "asked": 0.4, "cpu_ms": 2.5}
    dear["embed_ms"] = 4.0
    certificate = {**small.report["certificate"], "stages": [stage, dear]}
    costs = {"cascade_ms": 2.84, "alone_ms": 6.5}
    page = render_html({**small.report, "certificate": certificate, "cascade_costs": costs})
    assert "2.84 ms of CPU on average; by the last stage alone it would take 6.5 ms" in page
    row = re.search(r"<tr><td>encoder</td>.*?</tr>", page)
    assert row is not None
    assert re.findall(r'class="n">([^<]*)<', row[0]) == ["40.0 %", "30", "30.0 %", "28", "2.5", "4"]
    assert "order in which they are asked" not in render_html(
        {**small.report, "certificate": {**certificate, "stages": []}}
    )


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1])
def test_inks_and_borders_stand_out_from_what_they_lie_on(scheme: int) -> None:
    """Text has a contrast of 4.5 and the border of what can be typed into or pressed one of 3, in both schemes."""
    palette = re.findall(r":root \{(.*?)\}", asset("report.css"), re.DOTALL)[scheme]
    light = {name: luminance(colour) for name, colour in re.findall(r"--([\w-]+): (#[0-9a-f]+);", palette)}
    for ink in ("ink", "ink-soft", "handled", "deferred", "error", "good", "line-strong"):
        for ground in ("card", "page", "wash"):
            dark, bright = sorted([light[ink], light[ground]])
            assert (bright + 0.05) / (dark + 0.05) >= (3.0 if ink == "line-strong" else 4.5), (ink, ground)
