from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.components.surrogates.worlds import blobs, share_right
from tests.support.tasks import CONFIGS, banking, write_traces
from tracer_serve.cli.main import main
from tracer_serve.components.contract import check_acceptor, check_surrogate
from tracer_serve.components.factory import load_plugins, make_acceptor, make_surrogate
from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.plugins import load_plugin
from tracer_serve.config.load import Task, load_task
from tracer_serve.errors import PluginError, SpecError
from tracer_serve.lifecycle.refit_process import RefitProcess

EXAMPLES = Path(__file__).parents[2] / "plugins"
EXAMPLE_FILES = sorted(EXAMPLES.glob("*.py"))


def task(folder: Path, **changes: Any) -> Task:
    """Write and load a task that uses both example plugins."""
    spec = {
        "name": "plugged",
        "plugins": [str(file) for file in EXAMPLE_FILES],
        "surrogates": ["logreg", {"type": "prototype", "temperature": 0.05}],
        "acceptors": [{"type": "neighbours", "k": 3}],
        "teacher": {"type": "offline", "file": [str(CONFIGS / "banking.more.jsonl")]},
        "traces": {"import": [str(CONFIGS / "banking.more.jsonl")]},
        "state": str(folder / "state"),
    }
    file = folder / "task.yaml"
    file.write_text(yaml.safe_dump(spec | changes), encoding="utf-8")
    return load_task(file)


def test_a_yaml_brings_its_plugins(tmp_path: Path) -> None:
    """Named under `plugins:`, both examples are made with the parameters of their blocks, and keep the contract."""
    loaded = task(tmp_path)
    digests = load_plugins(loaded)
    assert sorted(digests) == [str(file) for file in EXAMPLE_FILES]
    assert all(len(digest) == 64 for digest in digests.values())
    surrogate, acceptor = make_surrogate(loaded, 1), make_acceptor(loaded, 0)
    assert (getattr(surrogate, "temperature", None), getattr(acceptor, "k", None)) == (0.05, 3)
    check_surrogate(lambda: make_surrogate(loaded, 1), "prototype")
    check_acceptor(lambda: make_acceptor(loaded, 0), "neighbours")


def test_a_plugin_learns_and_survives_the_disk(tmp_path: Path) -> None:
    """The example surrogate is right on blobs, before and after it was saved, without any code for saving."""
    loaded = task(tmp_path)
    load_plugins(loaded)
    inputs, labels = blobs()
    model = make_surrogate(loaded, 1).fit(inputs, labels)
    assert share_right(np.asarray(model.predict_proba(inputs)), model.classes_, labels) > 0.95
    save_component(model, tmp_path / "model")
    again = load_component(type(model), tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(inputs), model.predict_proba(inputs))


def test_a_plugin_is_a_member_of_a_blend(tmp_path: Path) -> None:
    """A blend takes plugins by name, as it takes built-ins."""
    members = ["knn", {"type": "prototype", "temperature": 0.2}]
    loaded = task(tmp_path, surrogates=[{"type": "blend", "members": members}])
    load_plugins(loaded)
    check_surrogate(lambda: make_surrogate(loaded, 0), "blend")


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"type": "prototype", "temprature": 1}, "unknown parameter 'temprature'. Did you mean 'temperature'"),
        ({"type": "prototype", "temperature": 0}, "parameter 'temperature': has to be greater than 0"),
        ({"type": "prototype", "temperature": "warm"}, "parameter 'temperature': has to be a valid number"),
        ("prototipe", "Did you mean 'prototype'"),
    ],
)
def test_a_wrong_block_is_told_by_its_place(tmp_path: Path, block: object, problem: str) -> None:
    """The signature of `__init__` is the schema: file, path, what is wrong and the nearest name are in the error."""
    loaded = task(tmp_path, surrogates=["logreg", block])
    load_plugins(loaded)
    with pytest.raises(SpecError) as error:
        make_surrogate(loaded, 1)
    assert str(error.value).startswith(f"{loaded.file}: surrogates[1]: ")
    assert problem in str(error.value)


def test_paths_of_plugins_are_relative_to_the_yaml(tmp_path: Path) -> None:
    """A plugin beside the YAML is found from any working folder."""
    (tmp_path / "mine.py").write_text(
        (EXAMPLES / "prototype.py").read_text(encoding="utf-8").replace('"prototype"', '"beside"')
    )
    loaded = task(tmp_path, plugins=["mine.py"], surrogates=["beside"])
    load_plugins(loaded)
    assert type(make_surrogate(loaded, 0)).__name__ == "Prototype"


def test_a_missing_plugin_file_is_told(tmp_path: Path) -> None:
    """The error names the file and says what paths are relative to."""
    with pytest.raises(PluginError, match=r"nowhere\.py does not exist; paths are relative to the YAML"):
        load_plugins(task(tmp_path, plugins=["nowhere.py"]))


def test_a_plugin_that_raises_is_told_and_can_be_mended(tmp_path: Path) -> None:
    """The error names file and exception; once the file is right, the same process loads it."""
    file = tmp_path / "mending.py"
    file.write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(PluginError, match=r"mending\.py failed to import: ZeroDivisionError: division by zero"):
        load_plugin(file)
    file.write_text("answer = 42\n", encoding="utf-8")
    assert len(load_plugin(file)) == 64


def test_a_plugin_file_is_imported_once(tmp_path: Path) -> None:
    """Loading it again neither runs it again nor registers twice, and gives the same hash."""
    file = tmp_path / "once.py"
    source = "with open(__file__ + '.ran', 'a') as file:\n    file.write('x')\n"
    file.write_text(source, encoding="utf-8")
    assert load_plugin(file) == load_plugin(file)
    assert (tmp_path / "once.py.ran").read_text(encoding="utf-8") == "x"


@pytest.mark.parametrize("file", EXAMPLE_FILES, ids=lambda file: file.stem)
def test_an_example_is_short_enough_to_copy(file: Path) -> None:
    """Under 40 lines, comments included."""
    assert len(file.read_text(encoding="utf-8").splitlines()) < 40


BROKEN = """
from tracer_serve.components.registry import surrogates

@surrogates.register("unnormalised")
class Unnormalised:
    def fit(self, inputs, labels):
        import numpy as np
        self.classes_ = np.unique(labels)
        return self
    def predict_proba(self, inputs):
        import numpy as np
        return np.ones((len(inputs), len(self.classes_)), np.float32)
"""


def test_check_refuses_a_plugin_that_breaks_the_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`tracer-serve check` and a fit name the plugin and the check that failed; plugins that keep it are named too."""
    good = task(tmp_path)
    assert main(["check", str(good.file)]) == 0
    assert "kept by prototype, neighbours" in capsys.readouterr().out
    broken = tmp_path / "broken.py"
    broken.write_text(BROKEN, encoding="utf-8")
    bad = task(tmp_path, plugins=[str(broken)], surrogates=["unnormalised"], acceptors=["top1"])
    for command in ("check", "fit"):
        assert main([command, str(bad.file)]) == 1
        error = capsys.readouterr().err
        assert "unnormalised" in error
        assert "sum" in error


HASHED = """
import numpy as np
from tracer_serve.components.registry import embedders

@embedders.register("hashed")
class Hashed:
    trainable = False
    fingerprint = "hashed"
    def fit(self, texts):
        return self
    def embed(self, texts):
        vectors = np.zeros((len(texts), 64), np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                vectors[row, hash(word) % 64] += 1
        return vectors
"""


def test_check_refuses_what_does_not_survive_a_restart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Vectors that hang on `hash()`, another one in each process, are found, and a way out is named."""
    (tmp_path / "hashed.py").write_text(HASHED, encoding="utf-8")
    made = task(tmp_path, plugins=["hashed.py"], surrogates=["knn"], acceptors=["top1"], embedder="hashed")
    assert main(["check", str(made.file)]) == 1
    error = capsys.readouterr().err
    assert "hashed predicts something else after a restart" in error
    assert "hashlib" in error


def test_a_plugin_called_like_a_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file `random.py` in the working folder is that plugin, and not what other processes import by that name."""
    file = tmp_path / "random.py"
    file.write_text((EXAMPLES / "prototype.py").read_text(encoding="utf-8").replace('"prototype"', '"lucky"'))
    monkeypatch.chdir(tmp_path)
    few = write_traces(tmp_path / "few.jsonl", *banking(60))
    made = task(
        tmp_path, plugins=["random.py"], surrogates=["lucky"], acceptors=["top1"], traces={"import": [str(few)]}
    )
    assert main(["check", str(made.file)]) == 0
    assert "kept by lucky" in capsys.readouterr().out
    assert RefitProcess(made.file, limit_s=60).run("by hand").outcome != "failed"


def test_a_plugin_may_not_take_a_built_ins_name(tmp_path: Path) -> None:
    """Whether or not the built-in was imported before."""
    file = tmp_path / "taken.py"
    file.write_text(BROKEN.replace('"unnormalised"', '"random_forest"'), encoding="utf-8")
    with pytest.raises(PluginError, match=r"surrogate 'random_forest' is built in; register Unnormalised by another"):
        load_plugin(file)
