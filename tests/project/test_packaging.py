"""The promises of the Makefile and of the pins."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())


def _dry_run(target: str, tmp_path: Path) -> str:
    command = ["make", "--dry-run", "--no-print-directory", f"VENV={tmp_path / 'venv'}", target]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_serve_installs_the_core_only_and_serves(tmp_path: Path) -> None:
    """On a fresh clone: an environment, the pinned core packages without extras, the service; no key, no torch."""
    plan = _dry_run("serve", tmp_path)
    assert "-m venv" in plan
    assert re.search(r"pip install .*--constraint constraints.txt --editable \.\n", plan)
    assert plan.rstrip().endswith("tracer-serve configs/banking.yaml")


def test_test_runs_every_check_once(tmp_path: Path) -> None:
    """Linter, formatter, types, layers, docs and tests, each exactly once; the coverage floor by itself."""
    plan = _dry_run("test", tmp_path)
    for step in ("ruff check .", "ruff format --check .", "bin/mypy", "lint-imports", "-m pytest", "-m venv"):
        assert plan.count(step) == 1, step
    assert "--cov-fail-under=85" in _dry_run("coverage", tmp_path)


def test_a_second_run_installs_nothing(tmp_path: Path) -> None:
    """With the stamps in place only the checks are left."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    for made in ("bin/python", ".core-installed", ".extras-installed"):
        (tmp_path / "venv" / made).touch()
    assert "pip install" not in _dry_run("test", tmp_path) + _dry_run("serve", tmp_path)


def test_ci_runs_what_people_run() -> None:
    """The CI script calls `make test`, fails on the first error and can be executed."""
    script = ROOT / ".ci" / "run"
    assert {"set -euo pipefail", "exec make test"} <= set(script.read_text().splitlines())
    assert script.stat().st_mode & 0o100


def test_every_dependency_is_pinned_exactly() -> None:
    """What pyproject asks for is in the constraints, torch at the release that is tested, and without a local build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    pinned = {name.lower().replace("_", "-") for name in PINS}
    names = {re.split(r"[<>=!;\[ ]", need)[0].lower() for need in wanted} - {project["name"]}
    assert names <= pinned, names - pinned
    assert PINS["torch"] == "2.13.0"
    assert not any("+" in pin for pin in PINS.values())


@pytest.mark.parametrize("name", ["bentoml", "scikit-learn", "numpy", "SQLAlchemy", "pydantic"])
def test_what_is_tested_is_what_is_pinned(name: str) -> None:
    """These tests run on the pinned releases."""
    assert version(name) == PINS[name]


PRIVATE = [
    *("_bentoml_impl", "_bentoml_sdk", "bentoml._internal", "circus", "watcher."),
    *("to_asgi", "inject_config", "HTTP_PROTOCOLS", "_get_sockets_fds"),
]
SOURCES = sorted((ROOT / "tracer_serve").rglob("*.py"))


def test_bentoml_is_used_by_its_public_interface() -> None:
    """No source names BentoML's internal packages, its process manager, or what used to be overridden there."""
    found = [f"{file}: {word}" for file in SOURCES for word in PRIVATE if word in file.read_text(encoding="utf-8")]
    assert not found


def _imported() -> Iterator[str]:
    """Yield the top-level modules that the package imports, also within functions."""
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            yield from (name.split(".")[0] for name in names)


def test_everything_that_is_imported_is_declared() -> None:
    """Each third-party module that the package imports belongs to a dependency of its own or of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {canonicalize_name(Requirement(need).name) for group in groups for need in group}
    owners = packages_distributions()
    for module in set(_imported()) - sys.stdlib_module_names - {"tracer_serve"}:
        assert declared & {canonicalize_name(name) for name in owners.get(module, [module])}, module


@pytest.mark.parametrize("name", ["bentoml", "httptools", "starlette", "uvicorn"])
def test_what_is_subclassed_is_bounded_from_above(name: str) -> None:
    """A release that may change what we rely on is not installed before the tests have passed on it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (need,) = (Requirement(line) for line in project["dependencies"] if Requirement(line).name == name)
    assert any(bound.operator == "<" for bound in need.specifier)
    assert need.specifier.contains(version(name))
