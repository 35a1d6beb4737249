import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from tracer_serve.components.registry import Registry, acceptors, embedders, surrogates, teachers
from tracer_serve.errors import PluginError

HEAVY = ("torch", "sentence_transformers", "xgboost", "bentoml", "onnxruntime", "transformers", "openvino")


class Sized:
    """A component with parameters of several kinds."""

    def __init__(self, size: Annotated[int, Field(ge=1)], name: str = "x", *, tags: tuple[str, ...] = ()) -> None:
        self.size, self.name, self.tags = size, name, tags


@pytest.fixture
def registry() -> Registry[Sized]:
    """An own registry over the package of surrogates, so that nothing leaks into other tests."""
    found: Registry[Sized] = Registry("surrogate")
    found.register("sized")(Sized)
    return found


def test_the_built_ins_are_all_there() -> None:
    """One name per file of each package, without the private ones."""
    expected = {"blend", "knn", "logreg", "mlp", "ngram_svc", "random_forest", "sgd", "xgboost"}
    assert expected <= set(surrogates.names())
    assert {"logistic", "margin", "top1"} <= set(acceptors.names())
    assert {"http", "ngrams", "precomputed", "sentence_transformers"} <= set(embedders.names())
    assert {"offline", "openai"} <= set(teachers.names())
    for known in (surrogates, acceptors, embedders, teachers):
        assert not any(name.startswith("_") for name in known.names())


def test_an_unknown_name_lists_what_is_there_and_the_nearest(registry: Registry[Sized]) -> None:
    """A misspelling gets a suggestion and the list, and the hint where own components are named."""
    with pytest.raises(PluginError) as error:
        registry.get("logregg")
    message = str(error.value)
    assert "there is no surrogate 'logregg'. Did you mean 'logreg'?" in message
    assert "Known: blend, encoder, knn, logreg," in message
    assert "`plugins:`" in message


def test_a_name_from_elsewhere_gets_the_name_it_has_here() -> None:
    """The encoder that the extra `minilm` installs is found by that name too, in its own registry only."""
    with pytest.raises(PluginError, match=r"'MiniLM'\. Did you mean 'sentence_transformers'"):
        embedders.get("MiniLM")
    with pytest.raises(PluginError) as error:
        surrogates.get("minilm")
    assert "Did you mean" not in str(error.value)


def test_a_wrong_type_is_explained_once(registry: Registry[Sized]) -> None:
    """The message states what is expected, without the parser's own words."""
    with pytest.raises(PluginError, match=r"has to be a valid integer$"):
        registry.build("sized", {"size": "many"})


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({}, "parameter 'size' is required"),
        ({"size": 0}, "parameter 'size': has to be greater than or equal to 1"),
        ({"size": "many"}, "parameter 'size': has to be a valid integer"),
        ({"size": 1, "nane": "y"}, "unknown parameter 'nane'. Did you mean 'name'? Allowed: size, name, tags"),
        ({"size": 1, "tags": "a"}, "parameter 'tags': has to be a valid tuple"),
    ],
)
def test_parameters_are_checked_by_the_signature(
    registry: Registry[Sized], params: dict[str, Any], problem: str
) -> None:
    """Errors on missing, out-of-range, mistyped and unknown parameters name kind, component and parameter."""
    with pytest.raises(PluginError) as error:
        registry.build("sized", params)
    assert str(error.value) == f"surrogate 'sized': {problem}" or problem in str(error.value)


def test_parameters_arrive_as_their_types(registry: Registry[Sized]) -> None:
    """A YAML list becomes the tuple that the signature asks for."""
    made = registry.build("sized", {"size": 2, "tags": ["a", "b"]})
    assert (made.size, made.name, made.tags) == (2, "x", ("a", "b"))


def test_context_fills_only_what_the_signature_asks_for(registry: Registry[Sized]) -> None:
    """What the task knows is given where it fits and loses against the block's own value."""
    assert registry.build("sized", {"size": 2}, {"name": "task", "labels": ("a",)}).name == "task"
    assert registry.build("sized", {"size": 2, "name": "own"}, {"name": "task"}).name == "own"


def test_a_name_is_registered_once(registry: Registry[Sized]) -> None:
    """Another class under a taken name is refused; the same class again (a re-imported file) is not."""
    registry.register("sized")(Sized)
    with pytest.raises(PluginError, match="surrogate 'sized' is registered twice"):

        @registry.register("sized")
        class Other:
            pass


def test_name_of_is_the_way_back(registry: Registry[Sized]) -> None:
    """A class has the name it was registered under; an unregistered one is an error."""
    assert registry.name_of(Sized) == "sized"
    with pytest.raises(PluginError, match="int is not registered as surrogate"):
        registry.name_of(int)


def install(folder: Path, module: str, source: str, points: str) -> None:
    """Lay an installed distribution with entry points into a folder."""
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[tracer_serve.surrogates]\n{points}\n", encoding="utf-8")


def test_entry_points_of_installed_packages_are_found(
    registry: Registry[Sized], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that declares an entry point is listed, made, and nothing is imported before it is asked for."""
    source = "class Found:\n    def __init__(self, depth: int = 1) -> None:\n        self.depth = depth\n"
    install(tmp_path, "tracer_found", source, "found = tracer_found:Found")
    monkeypatch.syspath_prepend(tmp_path)
    assert "found" in registry.names()
    assert "tracer_found" not in sys.modules
    assert getattr(registry.build("found", {"depth": 3}), "depth", None) == 3


def test_a_missing_package_is_told_from_a_missing_name(
    registry: Registry[Sized], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A component whose own dependency is absent names it, and how to get it."""
    install(tmp_path, "tracer_lacking", "import no_such_package_at_all\n", "lacking = tracer_lacking:Lacking")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="'lacking' needs the package 'no_such_package_at_all', which is not inst"):
        registry.get("lacking")


@pytest.mark.parametrize(
    "module",
    ["tracer_serve", "tracer_serve.components.factory", "tracer_serve.components.contract", "tracer_serve.cli.main"],
)
def test_heavy_libraries_stay_out(module: str) -> None:
    """In a fresh process, importing the package, its components or its command line brings no heavy library."""
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_choosing_a_light_surrogate_stays_light() -> None:
    """The default blend is there to load and predict without torch, bentoml, or even scikit-learn in the process."""
    code = (
        "import sys; from tracer_serve.components.registry import surrogates; surrogates.build('blend');"
        f" print(*[m for m in {(*HEAVY, 'sklearn')!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
