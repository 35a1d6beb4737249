"""A newcomer's mistakes: each gets a clear error and exit code 1, and loses nothing."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.support.tasks import write_task, write_traces
from tests.support.tiny import tiny_task
from tracer_serve.cli.commands._prepare import prepare
from tracer_serve.cli.main import main
from tracer_serve.config.load import Task
from tracer_serve.storage.traces.lease_owner import LEASE
from tracer_serve.storage.versions.digests import ManifestDigests
from tracer_serve.storage.versions.manifest import checksums
from tracer_serve.storage.versions.opening import open_versions, store_of


def edit(task: Task, **changes: object) -> str:
    spec = yaml.safe_load(task.file.read_text(encoding="utf-8")) | changes
    task.file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return str(task.file)


def failing(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.err


def test_a_misspelt_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest key is suggested."""
    error = failing(capsys, "check", edit(write_task(tmp_path), surogates=["logreg"]))
    assert "surogates: unknown key. Did you mean 'surrogates'?" in error


def test_an_unknown_surrogate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest name is suggested, and all are listed, with the place in the YAML."""
    error = failing(capsys, "check", edit(write_task(tmp_path), surrogates=["logreg", "logregg"]))
    assert "surrogates[1]: there is no surrogate 'logregg'. Did you mean 'logreg'?" in error
    assert "knn" in error


def test_a_wrong_parameter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A component's unknown parameter lists those it takes."""
    error = failing(capsys, "check", edit(write_task(tmp_path), surrogates=[{"type": "knn", "neighbors": 3}]))
    assert "surrogates[0]: surrogate 'knn': unknown parameter 'neighbors'" in error


def test_an_unset_variable(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable and its field are named."""
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    file = edit(write_task(tmp_path), state="${NOT_SET_ANYWHERE}/x")
    assert "state: environment variable NOT_SET_ANYWHERE is not set" in failing(capsys, "check", file)


def test_a_missing_trace_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is named with its whole path, by `check` already."""
    file = edit(write_task(tmp_path), traces={"import": ["nowhere.jsonl"]})
    for command in ("check", "fit"):
        assert str(tmp_path / "nowhere.jsonl") in failing(capsys, command, file)


def test_labels_of_another_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without a single label of the task is an error of `check`; with a few, the other lines are reported."""
    task = write_task(tmp_path)
    teacher = {"type": "openai", "model": "any"}
    file = edit(task, labels=["on", "off"], teacher=teacher, traces={"import": ["mine.jsonl"]})
    write_traces(tmp_path / "mine.jsonl", ["a", "b"], ["up", "down"])
    assert "label 'up' is not in the task's label set" in failing(capsys, "check", file)
    assert "--skip-bad" not in failing(capsys, "fit", file)
    write_traces(tmp_path / "mine.jsonl", ["a", "b"], ["on", "up"])
    assert main(["check", file]) == 0
    printed = capsys.readouterr()
    assert "mine.jsonl: rows 1, labels 1" in printed.out
    assert "line 2: label 'up' is not in the task's label set, which begins on, off. Lines refused: 1." in printed.err
    assert f"import {file}" in printed.err


def test_a_yaml_that_may_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever keeps a file from being read is said by the system's word for it."""
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    assert "loop.yaml: cannot be read: Too many levels" in failing(capsys, "check", str(tmp_path / "loop.yaml"))


def test_an_output_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder is looked for before the work is done, and the error says how to make it."""
    task = write_task(tmp_path)
    traces, there = str(tmp_path / "traces.jsonl"), tmp_path / "not there"
    for words in (
        ["scan", traces, "--html", f"{there}/x.html"],
        ["classify", str(task.file), traces, f"{there}/x.csv"],
    ):
        error = failing(capsys, *words)
        assert f"there is no folder {there}; create it: mkdir -p {there}" in error
        assert "fold 1" not in error
    assert "cannot be written" in failing(capsys, "scan", traces, "--html", str(tmp_path))


def test_a_state_that_is_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a version the folder that was looked in is named: `state` hangs on the working folder."""
    task = write_task(tmp_path)
    assert main(["versions", str(task.file)]) == 0
    assert f"no version yet in {task.state}" in capsys.readouterr().out
    labelled = ("classify", str(task.file), str(tmp_path / "traces.jsonl"), str(tmp_path / "out.csv"))
    for words in (labelled, ("report", str(task.file))):
        assert f"no version yet in {task.state}" in failing(capsys, *words)


def test_a_version_of_another_release_is_printed_as_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A version of an older format is named, with the command that writes a new one."""
    task = tiny_task(tmp_path)
    assert main(["fit", str(task.file)]) == 0
    folder = open_versions(task).folder(1)
    (folder / "model" / "policy.json").write_text("{}", encoding="utf-8")
    manifest = open_versions(task).manifest(1)
    (folder / "manifest.json").unlink()
    whole = replace(manifest, files=checksums(folder))
    (folder / "manifest.json").write_text(whole.as_json(), encoding="utf-8")
    ManifestDigests(lambda: closing(store_of(task))).record(whole)
    error = failing(capsys, "classify", str(task.file), str(tmp_path / "rows.jsonl"), str(tmp_path / "out.jsonl"))
    assert re.search(r"version 1 does not load: .+policy\.json was not written by this release .+refit TASK", error)


def test_nothing_to_roll_back_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first fit and with one version, the error says why, and which command shows what there is."""
    task = tiny_task(tmp_path)
    look = f"List them with: tracer-serve versions {task.file}"
    assert f"there is no version yet. {look}" in failing(capsys, "rollback", str(task.file))
    assert main(["fit", str(task.file)]) == 0
    assert f"no certified version before version 1. {look}" in failing(capsys, "rollback", str(task.file))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"input": "x", "teacher": ', "line 3"),
        (b'{"input": "", "teacher": "a"}', "line 3"),
        (b'{"input": "caf\xe9", "teacher": "a"}', "line 3"),
        (b'{"input": "no label here"}', "line 3"),
    ],
    ids=["malformed", "empty text", "not utf-8", "no label"],
)
def test_a_bad_line_refuses_the_file_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: bytes, why: str
) -> None:
    """File and line are named, nothing of the file is imported, and what was in the store stays."""
    task = write_task(tmp_path, rows=30)
    assert main(["fit", str(task.file)]) == 0
    bad = tmp_path / "bad.jsonl"
    good = b'{"input": "fine", "teacher": "a"}\n'
    bad.write_bytes(good + good + line + b"\n" + good)
    error = failing(capsys, "import", str(task.file), str(bad))
    assert str(bad) in error
    assert why in error
    assert "--skip-bad" in error
    store = store_of(task)
    assert len(list(store.traces.labelled())) == 30
    store.close()
    assert main(["import", str(task.file), str(bad), "--skip-bad"]) == 0


def test_a_label_seen_once_is_printed_and_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A label with one row is reported on import and breaks no fit."""
    task = write_task(tmp_path, rows=60)
    lonely = write_traces(tmp_path / "lonely.jsonl", ["an odd request"], ["odd"])
    assert main(["import", str(task.file), str(lonely)]) == 0
    assert "seen once  odd" in capsys.readouterr().out.replace("\n", " ")
    assert main(["fit", str(task.file)]) == 0


def test_labels_that_look_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two spellings of a label, and a label for every row, are reported with the next command."""
    task = write_task(tmp_path, rows=60)
    odd = write_traces(tmp_path / "odd.jsonl", ["a", "b", "c"], ["lost", "Lost", "x"])
    assert main(["import", str(task.file), str(odd), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "'Lost' and 'lost' differ in case or spaces only" in printed
    assert f"tracer-serve import {task.file} {odd}, with the same options except --dry-run" in printed
    each = write_traces(
        tmp_path / "each.jsonl", [f"t {n}" for n in range(40)], [f"a text of its own, {n}" for n in range(40)]
    )
    assert main(["import", str(task.file), str(each)]) == 0
    printed = capsys.readouterr().out
    assert "most rows have a label of their own" in printed
    assert f"tracer-serve refit {task.file}" in printed


def test_no_traces_to_fit_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fitting nothing says how to bring traces."""
    error = failing(capsys, "fit", edit(write_task(tmp_path), traces={}))
    assert "tracer-serve import" in error


def test_an_open_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` warns about what `serve` will refuse: an address that others reach, without keys."""
    assert main(["check", edit(write_task(tmp_path), server={"host": "0.0.0.0"})]) == 0
    assert "server.host: other machines can reach 0.0.0.0" in capsys.readouterr().err


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The port is named before anything slow starts; no version is written."""
    task = write_task(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} on 127.0.0.1 is in use" in failing(capsys, str(task.file), "--port", port)
    assert open_versions(task).numbers() == []


def test_an_unwritable_state_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A state folder that cannot be made is named with the reason."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    error = failing(capsys, "fit", edit(write_task(tmp_path), state=str(tmp_path / "file" / "state")))
    assert str(tmp_path / "file") in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_state_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without write permission is named with the reason."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert str(locked) in failing(capsys, "fit", edit(write_task(tmp_path), state=str(locked)))


def test_a_corrupt_version_is_named_and_the_way_out_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A start names a version whose files changed and leaves all to the teacher; rolling back to another works."""
    task = tiny_task(tmp_path)
    assert main(["fit", str(task.file)]) == 0
    assert main(["fit", str(task.file)]) == 0
    weights = open_versions(task).folder(2) / "model" / "policy.json"
    weights.write_text(weights.read_text(encoding="utf-8") + " ", encoding="utf-8")
    said = dict(prepare(task).facts)["version"]
    assert "NONE SERVES" in said
    assert "policy.json" in said
    assert "rollback" in said
    assert main(["rollback", str(task.file)]) == 0
    assert open_versions(task).current() == 1
    assert "version 1 serves now (before: 2)" in capsys.readouterr().out


def test_usage_errors_are_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown option is a usage error."""
    with pytest.raises(SystemExit) as caught:
        main(["fit", "x.yaml", "--nonsense"])
    assert caught.value.code == 2
    assert "--nonsense" in capsys.readouterr().err


def test_a_misspelt_command_is_not_taken_for_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    """A word that is neither a command nor a file is refused with the commands that there are."""
    with pytest.raises(SystemExit) as caught:
        main(["sevre", "x.yaml"])
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert "invalid choice: 'sevre'" in printed
    assert "'serve'" in printed


@pytest.mark.parametrize("port", ["0", "65536"])
def test_a_port_that_is_none(capsys: pytest.CaptureFixture[str], port: str) -> None:
    """The option takes what the YAML takes."""
    with pytest.raises(SystemExit) as caught:
        main(["x.yaml", "--port", port])
    assert caught.value.code == 2
    assert "--port: from 1 to 65535" in capsys.readouterr().err


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """A task that does not exist is reported by name, not as an unknown command."""
    assert "nowhere.yaml: no such file" in failing(capsys, "nowhere.yaml")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fit_tells_it_in_a_word(tmp_path: Path, sent: signal.Signals) -> None:
    """It ends with code 128 + n, one line and no traceback, leaves no version, and has let go of its lease."""
    task = write_task(tmp_path, rows=900)
    words = [sys.executable, "-m", "tracer_serve", "fit", str(task.file)]
    # a shell's background job ignores ctrl-c, and so would the command that it starts
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("fold 1 of ")
        process.send_signal(sent)
        printed = process.stderr.read()
    assert process.returncode == 128 + sent
    assert printed.splitlines()[-1:] == ["interrupted; unfinished work was discarded"]
    assert "Traceback" not in printed
    assert open_versions(task).numbers() == []
    store = store_of(task)
    assert store.leases.holder(LEASE) is None
    assert [entry.outcome for entry in store.refits.recent()] == ["stopped"]
    store.close()
