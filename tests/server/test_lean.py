"""What a server needs not, it does not load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.worlds import HANDLED, make_task, make_version
from tests.support.stub_llm import StubLLM

HEAVY = {"sklearn", "torch", "sentence_transformers", "xgboost", "onnxruntime", "pandas", "matplotlib"}

SERVE = """
import asyncio, json, sys
from pathlib import Path
from tracer_serve.config.load import load_task
from tracer_serve.server.app import make_app

async def main():
    app = make_app(load_task(Path(sys.argv[1])), schedule=False)
    async with app.router.lifespan_context(app):
        (result,) = await app.state.runtime.router.route([sys.argv[2]])
    return result.kind

print(json.dumps([asyncio.run(main()), sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def run(code: str, *words: str) -> list[object]:
    """Run code in a new interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    found: list[object] = json.loads(done.stdout)
    return found


def test_serving_a_fitted_version_loads_no_library_of_the_fit(tmp_path: Path, stub_llm: StubLLM) -> None:
    """A worker that answers by a version has imported neither scikit-learn nor any encoder's library."""
    task = make_task(tmp_path, stub_llm)
    make_version(task)
    kind, modules = run(SERVE, str(task.file), HANDLED)
    assert kind == "handled"
    assert isinstance(modules, list)
    assert not HEAVY & set(modules)


@pytest.mark.parametrize(
    "module",
    ["tracer_serve.cli.commands.serve", "tracer_serve.cli.commands._serving", "tracer_serve.server.process.supervisor"],
)
def test_the_process_that_starts_a_server_loads_no_library_of_the_fit(module: str) -> None:
    """`serve` with a version at hand is spared what a first fit would need, and what its worker imports meanwhile."""
    code = f"import json, sys, {module}; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    assert not (HEAVY | {"numpy", "sqlalchemy"}) & set(map(str, run(code)))
