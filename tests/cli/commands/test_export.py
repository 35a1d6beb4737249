"""`tracer-serve export`: a version as one ONNX file."""

import json
from pathlib import Path

import pytest

from tests.support.tiny import tiny_task
from tracer_serve.cli.main import main

pytest.importorskip("onnx", reason="pip install '.[onnx]' in a checkout of tracer-serve")


def test_the_version_that_serves_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what the graph takes and gives; with --json as JSON; without a version, what to type first."""
    task = tiny_task(tmp_path)
    words = ["export", str(task.file), "--onnx", str(tmp_path / "policy.onnx")]
    assert main(words) == 1
    assert f"`tracer-serve fit {task.file}` writes the first" in capsys.readouterr().err
    assert main(["fit", str(task.file)]) == 0
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["version"], told["inputs"]) == (1, ["vectors", "rarity"])
    assert told["bytes"] == (tmp_path / "policy.onnx").stat().st_size
    assert main(words) == 0
    assert "nothing closes it by itself" in capsys.readouterr().out
    assert main([*words[:-1], str(tmp_path / "no" / "policy.onnx")]) == 1
    assert "create it: mkdir -p" in capsys.readouterr().err
