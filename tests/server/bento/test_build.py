"""Building a bento: what comes along, what stays out, what the image is made of."""

import base64
import hashlib
import json
import re
import shlex
import shutil
import zipfile
from collections.abc import Iterator
from importlib.metadata import version as installed
from pathlib import Path

import pytest
import yaml

from tests.support.tasks import CONFIGS
from tests.support.tiny import tiny_task
from tracer_serve import __version__
from tracer_serve.cli.main import main
from tracer_serve.components.factory import make_embedder
from tracer_serve.config.load import Task, load_task
from tracer_serve.errors import PluginError, SpecError
from tracer_serve.lifecycle.refit import refit
from tracer_serve.server.bento.bundle import BASE
from tracer_serve.server.bento.carried import STATE, settle
from tracer_serve.server.bento.contents import copy_task
from tracer_serve.server.bento.pins import imported_by, needs, pins
from tracer_serve.server.bento.wheel import write_wheel
from tracer_serve.storage.versions.opening import open_versions

PLUGIN = "from tracer_serve.components.registry import surrogates\nimport numpy as np\nimport json\n"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Task:
    task = tiny_task(tmp_path_factory.mktemp("fitted"), plugins=["own.py"])
    (task.base / "own.py").write_text(PLUGIN, encoding="utf-8")
    refit(task)
    return task


@pytest.fixture(scope="module")
def bento(fitted: Task, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a bento that the command has built."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home))
        assert main(["build", str(fitted.file), "--tag", "bank:first"]) == 0
    folder = home / "bentos" / "bank" / "first"  # a name that BentoML prints as a picture
    yield folder
    shutil.rmtree(home)


def test_spec_plugins_and_version_come_along(bento: Path, fitted: Task) -> None:
    """The bento holds the YAML, its plugin and its teacher's file in their places, and the whole current version."""
    task = load_task(bento / "src" / "task" / "task.yaml")
    assert task.spec.model_dump(exclude={"traces"}) == fitted.spec.model_dump(exclude={"traces"})
    assert (bento / "src" / "task" / "own.py").read_text(encoding="utf-8") == PLUGIN
    carried = open_versions(fitted).folder(1)
    for file in carried.rglob("*"):
        if file.is_file():
            there = bento / "src" / "carried" / "version" / "000001" / file.relative_to(carried)
            assert there.read_bytes() == file.read_bytes()


def test_traces_and_other_versions_stay_out(bento: Path) -> None:
    """Neither store nor imports nor `current` are in the bento, and its YAML does not ask for the imports."""
    assert not [f for f in bento.rglob("*") if f.suffix in {".db", ".db-wal"} or f.name == "current"]
    assert "import" not in yaml.safe_load((bento / "src" / "task" / "task.yaml").read_text(encoding="utf-8"))["traces"]


def test_packages_are_those_that_are_tested_here(bento: Path) -> None:
    """Every line pins what is installed, this package comes as a wheel beside them, and torch is not among them."""
    lines = (bento / "env" / "python" / "requirements.txt").read_text(encoding="utf-8").split()
    wheel = f"./wheels/tracer_serve-{__version__}-py3-none-any.whl"
    assert wheel in lines
    assert (bento / "src" / wheel).is_file()
    pinned = dict(line.split("==") for line in lines if line != wheel)
    assert {"bentoml", "numpy", "scikit-learn", "uvloop"} <= set(pinned)
    assert not {"torch", "sentence-transformers", "transformers", "tracer-serve"} & set(pinned)
    assert pinned["numpy"] == installed("numpy")


def test_the_image(bento: Path) -> None:
    """Pinned base, wheel before the install, a state folder of its own that an unprivileged user may write to."""
    text = (bento / "env" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    steps = [shlex.split(line.rstrip("\\")) for line in text.splitlines() if line[:1].isupper()]
    assert steps[0] == ["FROM", BASE, "AS", "base-container"]
    words = [step[0] for step in steps]
    assert text.index("./src/wheels ./src/wheels") < text.index("uv --directory $INSTALL_ROOT pip install")
    assert ["ARG", f"TRACER_SERVE_STATE={STATE}"] in steps
    assert any(step[:3] == ["RUN", "install", "--directory"] and step[-1] == STATE for step in steps)
    assert ["USER", "bentoml"] in steps
    assert words[-1] == "ENTRYPOINT"
    assert "RUN" not in words[words.index("USER") :]
    assert not any("apt-get" in step for step in steps)


def test_a_bento_says_what_it_is(bento: Path) -> None:
    """Its description names state folder and version; what BentoML reads names no path of this machine."""
    described = (bento / "README.md").read_text(encoding="utf-8")
    assert "version 1, certified on 96 traces" in described
    assert STATE in described
    assert str(Path.home()) not in (bento / "bento.yaml").read_text(encoding="utf-8")


def test_what_came_along_serves_where_nothing_is(bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty state gets the version and serves it; a second start changes nothing."""
    monkeypatch.setenv("TRACER_SERVE_STATE", str(tmp_path))
    task = load_task(bento / "src" / "task" / "task.yaml")
    for _ in range(2):
        settle(task, bento / "src" / "carried")
        assert open_versions(task).current() == 1
        assert open_versions(task).numbers() == [1]
    assert not list(open_versions(task).root.glob(".aside-*"))


def test_a_start_cut_short_is_finished(bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that was taken in and does not serve yet serves after the next start."""
    monkeypatch.setenv("TRACER_SERVE_STATE", str(tmp_path))
    task = load_task(bento / "src" / "task" / "task.yaml")
    settle(task, bento / "src" / "carried")
    (open_versions(task).root / "current").unlink()
    settle(task, bento / "src" / "carried")
    assert open_versions(task).current() == 1


def test_what_was_learnt_since_then_stays(bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state with versions of its own is left alone, also one whose only version is not certified."""
    monkeypatch.setenv("TRACER_SERVE_STATE", str(tmp_path))
    task = load_task(bento / "src" / "task" / "task.yaml")
    own = open_versions(task)
    shutil.copytree(bento / "src" / "carried" / "version", own.root)
    manifest = own.root / "000001" / "manifest.json"
    facts = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps(facts | {"certified": False}), encoding="utf-8")
    settle(task, bento / "src" / "carried")
    assert own.current() is None
    (own.root / "000001").rename(own.root / "000007")
    settle(task, bento / "src" / "carried")
    assert own.numbers() == [7]


def test_an_encoder_comes_as_its_export(bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A carried ONNX export is found by a server that has neither weights nor torch, also for pairs."""
    carried = tmp_path / "carried"
    shutil.copytree(bento / "src" / "carried", carried)
    export = {"model.onnx": b"graph", "tokenizer.json": b"{}"}
    facts: dict[str, object] = {"weights": "", "max_tokens": 8, "dim": 2, "prompt": ""}
    facts["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in export.items()}
    (carried / "onnx" / "0").mkdir(parents=True)
    for name, content in (export | {"export.json": json.dumps(facts).encode()}).items():
        (carried / "onnx" / "0" / name).write_bytes(content)
    encoder = {"type": "sentence_transformers", "model": "nobody/nothing", "backend": "onnx"}
    task = tiny_task(tmp_path, embedder=encoder, input="pair")
    monkeypatch.setenv("TRACER_SERVE_STATE", str(tmp_path / "there"))
    for _ in range(2):
        settle(task, carried)
        embedder = make_embedder(task)
        assert embedder.fingerprint.startswith("pair1-sentence_transformers-onnx-")
    (found,) = (tmp_path / "there" / "onnx").iterdir()
    assert {file.name: file.read_bytes() for file in found.iterdir() if file.name in export} == export


def test_another_task_does_not_get_it(bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spec of another name, by TRACER_SERVE_TASK, starts without a version."""
    monkeypatch.setenv("TRACER_SERVE_STATE", str(tmp_path / "state"))
    other = tiny_task(tmp_path, name="other")
    settle(other, bento / "src" / "carried")
    assert open_versions(other).numbers() == []


def test_the_wheel_is_one(tmp_path: Path) -> None:
    """RECORD tells each file's true hash and size, entry point and data files are in it, and it is reproducible."""
    wheel = write_wheel(tmp_path / "a")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"tracer_serve-{installed('tracer-serve')}.dist-info"
        for line in archive.read(f"{info}/RECORD").decode().splitlines():
            name, digest, size = line.rsplit(",", 2)
            names.remove(name)
            if digest:
                content = archive.read(name)
                found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                assert (f"sha256={found}", str(len(content))) == (digest, size)
        assert not names
        assert "tracer-serve = tracer_serve.cli.main:entry" in archive.read(f"{info}/entry_points.txt").decode()
        assert "tracer_serve/report/assets/echarts.js" in archive.namelist()
    assert write_wheel(tmp_path / "b").read_bytes() == wheel.read_bytes()


def test_relative_places_are_kept(tmp_path: Path) -> None:
    """A plugin beside the YAML's folder lies beside it in the copy; with_traces takes the imports along."""
    for folder in ("plugins", "tasks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "plugins" / "own.py").write_text(PLUGIN, encoding="utf-8")
    task = tiny_task(tmp_path / "tasks", plugins=["../plugins/own.py"], teacher="offline")
    task = load_task(task.file)
    place = copy_task(task, tmp_path / "plain")
    assert place == Path("tasks/task.yaml")
    copied = sorted(p.relative_to(tmp_path / "plain").as_posix() for p in (tmp_path / "plain").rglob("*.*"))
    assert copied == ["plugins/own.py", "tasks/task.yaml"]
    copy_task(task, tmp_path / "whole", with_traces=True)
    assert (tmp_path / "whole" / "tasks" / "rows.jsonl").is_file()
    assert (tmp_path / "whole" / "tasks" / "task.yaml").read_text(encoding="utf-8") == task.source


def test_an_absolute_path_is_refused(tmp_path: Path) -> None:
    """It would name a file of another machine."""
    (tmp_path / "own.py").write_text(PLUGIN, encoding="utf-8")
    with pytest.raises(SpecError, match=r"own\.py is absolute.*relative to the YAML"):
        copy_task(tiny_task(tmp_path, plugins=[str(tmp_path / "own.py")]), tmp_path / "to")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, "no version of tiny is certified yet.*Try: tracer-serve fit"),
        ({"plugins": ["absent.py"]}, "absent.py does not exist"),
        (
            {"embedder": {"type": "sentence_transformers", "backend": "torch"}},
            "embedder.backend: torch would.*backend: onnx",
        ),
    ],
)
def test_what_cannot_be_built_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: dict[str, object], told: str
) -> None:
    """No certified version, a missing plugin, an encoder on torch: exit code 1, and what to do."""
    task = tiny_task(tmp_path, **spec)
    assert main(["build", str(task.file)]) == 1
    assert re.search(told, capsys.readouterr().err)


def test_what_bentoml_refuses_is_told(
    fitted: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that cannot be written: exit code 1, BentoML's last word, and where it wanted to write."""
    monkeypatch.setenv("BENTOML_HOME", "/proc/nowhere")
    assert main(["build", str(fitted.file)]) == 1
    assert re.search(r"bentoml build failed: .+Is /proc/nowhere writable, with free space\?$", capsys.readouterr().err)


def test_only_what_the_task_needs_is_installed(tmp_path: Path) -> None:
    """Extras follow the spec: Postgres its driver, ONNX its runtime without the exporter, plugins their imports."""
    assert needs(load_task(CONFIGS / "banking.yaml")) == ["tracer-serve"]
    store = {"import": [], "url": "postgresql+psycopg://u@h/d"}
    task = tiny_task(tmp_path, surrogates=["knn", "xgboost"], traces=store, versions={"url": "s3://b/v"})
    assert needs(task, ["otel"]) == ["tracer-serve[otel,postgres,s3,xgboost]"]
    (tmp_path / "own.py").write_text("import yaml, os\nfrom sklearn.svm import SVC\n", encoding="utf-8")
    encoder = {"type": "sentence_transformers", "backend": "onnx"}
    task = tiny_task(tmp_path, plugins=["own.py"], embedder=encoder)
    assert needs(task) == ["tracer-serve", "onnxruntime", "tokenizers", "PyYAML", "scikit-learn"]
    assert not any(pin.startswith(("onnx==", "torch==")) for pin in pins(needs(task)))
    assert set(imported_by(tmp_path / "own.py")) == {"PyYAML", "scikit-learn"}


def test_a_package_that_is_not_here_is_told() -> None:
    """The error names it and the command that installs it."""
    with pytest.raises(PluginError, match=r"'no-such-thing'.*pip install 'no-such-thing>=2'"):
        pins(["no-such-thing>=2"])
