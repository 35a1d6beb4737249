"""What people can write or call is documented, and what is documented is there."""

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from starlette.routing import Route

from tracer_serve.cli.commands import schema
from tracer_serve.cli.main import COMMANDS
from tracer_serve.components.registry import acceptors, embedders, redactors, surrogates, teachers
from tracer_serve.config.task import Spec
from tracer_serve.server.app import ROUTES
from tracer_serve.serving.metrics import VERSION_METRICS

ROOT = Path(__file__).parents[2]
PAGES = (*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"))
DOCS = {file.relative_to(ROOT).as_posix().removeprefix("docs/"): file.read_text(encoding="utf-8") for file in PAGES}


def test_the_reference_is_what_the_code_says() -> None:
    """Keys, parameters, routes, metrics and commands are documented as they are; `make reference` writes the pages."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run `make reference`"


@pytest.fixture
def generate() -> ModuleType:
    """The module that writes the reference."""
    found = spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_a_new_key_without_docs_is_noticed(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field of the YAML that the reference lacks makes its page stale."""

    class More(Spec):
        extra: int = 1

    monkeypatch.setattr(generate, "Spec", More)
    assert generate.stale(["configuration.md"]) == ["configuration.md"]


def test_a_new_route_without_docs_is_noticed(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A route that the OpenAPI document lacks ends the generation with its path."""
    monkeypatch.setattr(generate, "ROUTES", [*ROUTES, Route("/v1/extra/{name:path}", lambda _: None)])
    with pytest.raises(SystemExit, match=r"/v1/extra/\{name\}"):
        generate.stale(["http.md"])


def test_a_new_metric_without_docs_is_noticed(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter or gauge that the reference lacks makes its page stale."""
    monkeypatch.setitem(VERSION_METRICS, "tracer_extra", "One more.")
    assert generate.stale(["metrics.md"]) == ["metrics.md"]


def test_a_new_command_without_docs_is_noticed(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that the reference lacks makes its page stale."""
    monkeypatch.setenv("COLUMNS", "80")  # the generator sets it
    monkeypatch.setitem(COMMANDS, "extra", "do one more thing")
    monkeypatch.setitem(sys.modules, "tracer_serve.cli.commands.extra", schema)
    assert generate.stale(["commands.md"]) == ["commands.md"]


@pytest.mark.parametrize("registry", [embedders, surrogates, acceptors, teachers, redactors], ids=lambda r: r.kind)
def test_every_component_is_documented(registry: object) -> None:
    """Each built-in has a section in docs/reference/components.md."""
    for name in registry._builtin_names():  # type: ignore[attr-defined]
        assert f"### `{name}`" in DOCS["reference/components.md"], name


def test_every_command_is_documented() -> None:
    """The README names every command."""
    for command in COMMANDS:
        assert f"`{command}`" in DOCS["README.md"], command


def test_no_link_is_broken() -> None:
    """Relative links in README and docs lead to files."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_a_broken_link_fails_the_site(tmp_path: Path) -> None:
    """The command of `make docs` exits with 1 on a page whose link leads nowhere."""
    (recipe,) = re.findall(r"^\t\$\(BIN\)/mkdocs (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    (tmp_path / "mkdocs.yml").write_text("site_name: x\nstrict: true\n", encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[nothing](there.md)\n", encoding="utf-8")
    words = [sys.executable, "-m", "mkdocs", *recipe.split()]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr


def test_the_readme_is_short_and_its_pictures_are_small() -> None:
    """At most 900 words, and at most 200 kB a picture."""
    assert len(DOCS["README.md"].split()) <= 900
    pictures = re.findall(r"!\[[^]]*\]\((docs/images/[a-z]+\.png)\)", DOCS["README.md"])
    assert len(pictures) == 2
    assert all((ROOT / picture).stat().st_size < 200_000 for picture in pictures)


def test_the_docs_hold_at_most_20000_words() -> None:
    """Words outside code blocks, the generated reference included; the mark of a table's cell is no word."""
    pages = (file.read_text(encoding="utf-8") for file in (ROOT / "docs").rglob("*.md"))
    prose = " ".join(re.sub(r"```.*?```", "", page, flags=re.DOTALL) for page in pages)
    assert sum(bool(re.search(r"\w", word)) for word in prose.split()) <= 20_000


def test_no_message_installs_a_name_that_is_not_published() -> None:
    """Until tracer-serve is on an index, messages install its extras from a checkout."""
    for file in ROOT.glob("tracer_serve/**/*.py"):
        assert not re.search(r"install '?tracer-serve\b", file.read_text(encoding="utf-8")), file


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
    """docs/architecture.md answers at least seven questions, each with one to four files of the package."""
    rows = re.findall(r"^\| ([A-Z][^|]*\?) \| (.*) \|$", DOCS["architecture.md"], re.MULTILINE)
    assert len(rows) >= 7
    for question, answer in rows:
        files = re.findall(r"`([a-z_/]+\.[a-z]+)`", answer)
        assert 1 <= len(files) <= 4, question
        assert all((ROOT / "tracer_serve" / file).is_file() for file in files), question


def test_every_package_has_its_place_in_the_architecture() -> None:
    """docs/architecture.md names every module and package at the root, with what it holds."""
    here = (path for path in (ROOT / "tracer_serve").iterdir() if not path.name.startswith("__"))
    for name in (f"{path.name}/" if path.is_dir() else path.name for path in here):
        assert f"`{name}`" in DOCS["architecture.md"], name
