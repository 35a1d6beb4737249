"""`scan` says what a bare trace file would give."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.stub_llm import StubLLM
from tests.support.tasks import banking, write_task, write_traces
from tests.support.tiny import tiny_task
from tracer_serve.cli.main import main
from tracer_serve.config.load import Task
from tracer_serve.fit.comparison import compare
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.report.pricing import CallPrice
from tracer_serve.report.scan import ALPHAS, scan


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real traces, one of whose texts tries to be HTML."""
    texts, labels = banking(400)
    texts[0] = "</script><script>alert(1)</script> " + texts[0]
    return write_traces(tmp_path_factory.mktemp("scan") / "traces.jsonl", texts, labels)


def test_a_bare_file_gives_table_page_and_json(
    traces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a YAML: every alpha, less coverage the stricter it is, a curve, money net of audits, one closed page."""
    page = tmp_path / "<b>scan.html"
    words = ["scan", str(traces), "--json", "--html", str(page), "--price-per-call", "0.01", "--calls-per-day", "1000"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    points = found["points"]
    assert [p["alpha"] for p in points] == list(ALPHAS)
    coverage = [p["coverage"] for p in points]
    assert coverage[0] > 0.5
    assert coverage[0] >= coverage[-1]
    assert [size for size, _ in points[0]["curve"]] == [100, 200, 400]
    assert points[0]["curve"][-1][1] == coverage[0]
    for p in points:
        assert p["calls_saved"] == pytest.approx(p["coverage"] * 0.97)
        assert found["money"]["saved"][f"{p['alpha']:g}"] == pytest.approx(10 * p["calls_saved"])
    html = page.read_text(encoding="utf-8")
    assert "<b>scan" not in html
    assert "alert(1)" not in html
    assert not re.search(r'(src|href)="(?!#)', html)
    assert "default-src 'none'" in html
    assert f"{100 * coverage[0]:.1f} %" in html


def test_a_scan_of_a_task_embeds_for_its_first_fit_too(tmp_path: Path, stub_llm: StubLLM) -> None:
    """With --task the vectors go to the task's cache: a second scan asks the embedder about no text."""
    embedder = {"type": "http", "base_url": stub_llm.url, "model": "m"}
    task = write_task(tmp_path, embedder=embedder).file
    traces = write_traces(tmp_path / "scanned.jsonl", *banking(120))
    assert main(["scan", str(traces), "--task", str(task), "--json"]) == 0
    asked = stub_llm.count
    assert asked > 0
    assert main(["scan", str(traces), "--task", str(task), "--json"]) == 0
    assert stub_llm.count == asked


def test_the_terminal_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has a line per alpha, says what audits cost, and which lines were left out as no traces."""
    task = write_task(tmp_path)  # its surrogate takes a tenth of the default's time
    traces = write_traces(tmp_path / "scanned.jsonl", *banking(120))
    with traces.open("a", encoding="utf-8") as file:
        file.write('{"input": "", "teacher": "x"}\n{broken\n')
        file.write('{"input": "a", "teacher": "One"}\n{"input": "b", "teacher": "one"}\n')
    prices = ["--prompt-per-1m", "0.4", "--completion-per-1m", "1.6"]
    assert main(["scan", str(traces), "--task", str(task.file), "--skip-bad", *prices]) == 0
    printed, errors = capsys.readouterr()
    assert "'One' and 'one' differ in case or spaces only" in errors.partition("fold 1")[0]
    assert "2 lines, such as line 121: the text is empty" in printed
    for alpha in ALPHAS:
        assert f"{alpha:g}" in printed
    for word in (
        "net of audits",
        "USD per 1,000 requests",
        "completion tokens a call",
        "next: nothing can be certified",
    ):
        assert word in printed


def test_lines_that_are_no_traces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused lines end a scan with their number and the way out."""
    traces = tmp_path / "traces.jsonl"
    traces.write_text('{"input": "a", "teacher": "x"}\n{"input": "", "teacher": "x"}\n', encoding="utf-8")
    assert main(["scan", str(traces)]) == 1
    error = capsys.readouterr().err
    for words in ("line 2: the text is empty", "1 of 2 lines", "--skip-bad"):
        assert words in error


def test_a_task_s_own_settings_are_scanned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --task its surrogates, delta, audits and price are used."""
    price = {"currency": "EUR", "prompt_per_1m": 1.0, "completion_per_1m": 2.0}
    teacher = {"type": "openai", "model": "m", "price": price}
    task = write_task(tmp_path, gate={"delta": 0.1}, traces={"audit_rate": 0.2}, teacher=teacher)
    assert main(["scan", str(tmp_path / "traces.jsonl"), "--task", str(task.file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["delta"], found["audit_rate"], found["money"]["currency"]) == (0.1, 0.2, "EUR")
    assert {p["surrogate"] for p in found["points"]} == {"logreg"}


class Counting:
    """An embedder that counts what it embeds."""

    trainable = False
    fingerprint = "counting"

    def __init__(self) -> None:
        self.calls = 0

    def fit(self, texts: Any) -> "Counting":
        del texts
        return self

    def embed(self, texts: Any) -> Any:
        self.calls += 1
        vectors = np.array([[len(t) % 7, len(t) % 3, 1.0] for t in texts], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rows(n: int = 400) -> Rows:
    texts = [f"{'x' * (i % 7 + 1)}{i:04d}" for i in range(n)]
    return Rows.of(texts, [f"label{len(t) % 7}" for t in texts])


def test_one_cross_fit_serves_all_alphas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many alphas, the surrogates are cross-fitted once on all rows, and once per smaller part."""
    sizes: list[int] = []

    def counted(task: Task, rows: Rows, *args: Any) -> Any:
        sizes.append(len(rows))
        return compare(task, rows, *args)

    monkeypatch.setattr("tracer_serve.report.scan.compare", counted)
    scan(write_task(tmp_path), rows(), [Counting()], alphas=np.linspace(0.5, 0.99, 20).tolist())
    assert sorted(sizes) == [100, 200, 400]


def test_a_point_is_what_a_fit_at_that_alpha_certifies(tmp_path: Path) -> None:
    """The scan's coverage at the task's alpha is the certificate that a fit of the same rows gets."""
    task = write_task(tmp_path, gate={"alpha": 0.9})
    point = next(p for p in scan(task, rows(), [Counting()]).points if p.alpha == 0.9)
    certificate = fit_policy(task, rows(), Counting()).certificate
    assert (point.coverage, point.lower_bound) == (certificate.coverage, certificate.lower_bound)


def test_prices_of_tokens_follow_the_lengths(tmp_path: Path) -> None:
    """The price of a call follows its estimated tokens: text, prompt with the known labels, envelope and answer."""
    price = {"prompt_per_1m": 1.0, "completion_per_1m": 10.0}
    task = tiny_task(tmp_path, teacher={"type": "openai", "model": "m", "prompt": "One of {labels}"})
    found = CallPrice.of_tokens(task, ["x" * 400] * 3, np.array(["abcd", "efgh", "abcd"]), price)
    prompt = (len("One of abcd, efgh, or another short label where none of these fits") + 400) / 4 + 8
    assert found.per_call == pytest.approx((prompt * 1.0 + (4 / 4 + 1) * 10.0) / 1e6)
    assert found.saved(0.5) == pytest.approx(500 * found.per_call)


@pytest.mark.parametrize(
    ("lines", "message"),
    [(["not json"], "malformed JSON"), (['{"input": "a", "teacher": "x"}'] * 3, "too few"), ([], "trace")],
)
def test_what_cannot_be_scanned_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], message: str
) -> None:
    """Unreadable, nearly empty and empty files end in one clear line and exit code 1."""
    file = tmp_path / "traces.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert main(["scan", str(file)]) == 1
    assert message in capsys.readouterr().err
