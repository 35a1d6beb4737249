"""What people can write or call is documented, and what is documented is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tracer_serve.cli.main import COMMANDS
from tracer_serve.components.registry import acceptors, embedders, redactors, surrogates, teachers
from tracer_serve.server.app import ROUTES
from tracer_serve.serving.metrics import Metrics, render

ROOT = Path(__file__).parents[2]
DOCS = {file.name: file.read_text(encoding="utf-8") for file in (*ROOT.glob("docs/*.md"), ROOT / "README.md")}


def test_the_reference_is_what_the_code_says() -> None:
    """Keys, parameters, routes, metrics and commands are documented as they are; `make reference` writes the pages."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run `make reference`"


@pytest.mark.parametrize("registry", [embedders, surrogates, acceptors, teachers, redactors], ids=lambda r: r.kind)
def test_every_component_is_documented(registry: object) -> None:
    """Each built-in is named in docs/configuration.md."""
    for name in registry._builtin_names():  # type: ignore[attr-defined]
        assert f"`{name}`" in DOCS["configuration.md"], name


def test_every_route_is_documented_and_no_other() -> None:
    """The table of docs/http.md has just the service's routes."""
    found = set(re.findall(r"^\| `(?:GET|POST) (/[^`]*)` \|", DOCS["http.md"], re.MULTILINE))
    assert found == {route.path.replace(":int", "").replace(":path", "") for route in ROUTES}


def test_every_metric_is_documented_and_no_other() -> None:
    """The table of docs/http.md has just the metrics that the server exposes."""
    table = set(re.findall(r"^\| `(tracer_[a-z_]+)` \|", DOCS["http.md"], re.MULTILINE))
    shown = set(re.findall(r"^# TYPE (tracer_[a-z_]+) ", render([Metrics("t", lambda: None)]).decode(), re.MULTILINE))
    of_a_version = {
        "tracer_coverage_ratio",
        "tracer_agreement_lower_bound",
        "tracer_agreement_target",
        "tracer_policy_info",
        "tracer_monitor_evidence",
        "tracer_gate_closed",
        "tracer_audit_rate",
        "tracer_proved_live",
    }
    assert table == shown | of_a_version


def test_every_command_is_documented() -> None:
    """The README names every command."""
    for command in COMMANDS:
        assert f"`{command}`" in DOCS["README.md"], command


def test_no_link_is_broken() -> None:
    """Relative links in README and docs lead to files."""
    for name, text in DOCS.items():
        folder = ROOT if name == "README.md" else ROOT / "docs"
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (folder / target).exists(), f"{name}: {target}"


def test_every_reference_to_the_gate_page_resolves() -> None:
    """Code refers to docs/gate.md as `gate.md, section N`, and each N is the number of one of its headings."""
    sections = re.findall(r"^## (\d+)\. ", DOCS["gate.md"], re.MULTILINE)
    assert len(sections) == len(set(sections))
    found = 0
    for file in (*ROOT.glob("tracer_serve/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("bench/**/*.py")):
        if file == Path(__file__):
            continue
        for rest in re.findall(r"\bgate\.md(.{0,30})", file.read_text(encoding="utf-8")):
            numbered = re.match(r", sections? (\d+)(?:(?: to | and )(\d+))?", rest)
            assert numbered, f"{file}: gate.md{rest}"
            assert {number for number in numbered.groups() if number} <= set(sections), f"{file}: gate.md{rest}"
            found += 1
    assert found > 0


def test_the_root_of_the_package_holds_at_most_six_modules() -> None:
    """A newcomer reads packages, not a flat list of modules."""
    assert len(list((ROOT / "tracer_serve").glob("*.py"))) <= 6


def test_newcomers_questions_are_answered_by_at_most_four_files_that_exist() -> None:
    """docs/architecture.md answers seven questions, each with one to four files of the package."""
    rows = re.findall(r"^\| ([A-Z][^|]*\?) \| (.*) \|$", DOCS["architecture.md"], re.MULTILINE)
    assert len(rows) == 7
    for question, answer in rows:
        files = re.findall(r"`([a-z_/]+\.[a-z]+)`", answer)
        assert 1 <= len(files) <= 4, question
        assert all((ROOT / "tracer_serve" / file).is_file() for file in files), question


def test_every_package_has_its_place_in_the_architecture() -> None:
    """docs/architecture.md names every module and package at the root, with what it holds."""
    here = (path for path in (ROOT / "tracer_serve").iterdir() if not path.name.startswith("__"))
    for name in (f"{path.name}/" if path.is_dir() else path.name for path in here):
        assert f"`{name}`" in DOCS["architecture.md"], name
