"""Write the sources of a bento and build it with BentoML."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tracer_serve import __version__
from tracer_serve.components.embedders.sentence_transformers import SentenceTransformers
from tracer_serve.components.factory import embedders_of, load_plugins, make_embedders
from tracer_serve.config.load import Task
from tracer_serve.errors import ArtifactError, SpecError
from tracer_serve.server.bento.carried import STATE, single
from tracer_serve.server.bento.contents import copy_task
from tracer_serve.server.bento.pins import needs, pins
from tracer_serve.server.bento.wheel import write_wheel
from tracer_serve.server.process.handshake import TASK
from tracer_serve.storage.versions.manifest import Manifest
from tracer_serve.storage.versions.opening import open_versions

_SERVICE = '''\
"""Made by `tracer-serve build`."""

from pathlib import Path

from tracer_serve.server.bento.bundle import bento_service

svc = bento_service(Path(__file__).parent, {task!r})
'''
_PACK = """
import sys
from bentoml.bentos import build_bentofile

name, version = sys.argv[1:]
print(build_bentofile(name=name or None, version=version or None, build_ctx=".").tag)
"""
"""BentoML's own command prints an emoji for ``:bank:`` in ``bank:v1``."""
_README = """\
# {name}

The task `{name}`, served by tracer-serve {software}: version {version}, certified on {traces:,} traces.

`bentoml serve {name}` serves it; `bentoml containerize {name}` makes an image of it. Traces and new versions go to the
folder in `TRACER_SERVE_STATE` ({state} in an image, `~/.tracer` elsewhere): mount a volume there. Versions that are
already in that folder take precedence. `TRACER_SERVE_TASK` names another YAML.
"""


@dataclass(frozen=True, slots=True)
class Built:
    """A bento in BentoML's store.

    Parameters
    ----------
    tag : name and version
    version : the packed version
    packages : number of pinned packages
    """

    tag: str
    version: Manifest
    packages: int


def build(task: Task, tag: str = "", *, with_traces: bool = False, extras: Sequence[str] = ()) -> Built:
    """Build the bento of a task.

    Parameters
    ----------
    tag : ``NAME:VERSION`` or ``NAME``; empty: the task's name, and a version that BentoML generates
    with_traces : whether to pack the files under ``traces.import``
    extras : further extras of tracer-serve to install, such as ``otel``

    Raises
    ------
    ArtifactError
        If no certified version serves yet, or BentoML fails.
    SpecError, PluginError
        If a file is missing, the encoder would need torch, or a package is not installed.
    """
    load_plugins(task)
    exports = _exports(task)
    version = _certified(task)
    pinned = pins(needs(task, extras))
    with tempfile.TemporaryDirectory(prefix="tracer-serve-bento-") as scratch:
        folder = Path(scratch)
        place = copy_task(task, folder / "task", with_traces=with_traces)
        number = open_versions(task).folder(version.version)
        shutil.copytree(number, folder / "carried" / "version" / number.name)
        for at, export in exports.items():
            shutil.copytree(export, folder / "carried" / "onnx" / str(at))
        wheel = write_wheel(folder / "wheels")
        (folder / "requirements.txt").write_text("\n".join([*pinned, f"./wheels/{wheel.name}", ""]), encoding="utf-8")
        (folder / "service.py").write_text(_SERVICE.format(task=f"task/{place.as_posix()}"), encoding="utf-8")
        name = task.spec.name
        facts = {"software": __version__, "version": version.version, "traces": version.traces}
        (folder / "README.md").write_text(_README.format(name=name, state=STATE, **facts), encoding="utf-8")
        envs = [{"name": "TRACER_SERVE_STATE", "value": STATE}, {"name": "BENTOML_DO_NOT_TRACK", "value": "True"}]
        options = {"service": "service:svc", "name": name, "include": ["**"], "envs": envs}
        (folder / "bentofile.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
        return Built(_pack(folder, tag), version, len(pinned))


def _exports(task: Task) -> dict[int, Path]:
    """Return the encoders' ONNX exports, by place in `Spec.embedders`."""
    found = {}
    for place, embedder in enumerate(make_embedders(single(task))):
        if not isinstance(embedder, SentenceTransformers):
            continue
        if embedder.backend == "torch":
            raise SpecError(
                "torch would add gigabytes to the image. Set `backend: onnx` (the same vectors) or `onnx-int8`, run"
                f" `tracer-serve fit {task.file}`, then build",
                file=task.file,
                path=f"{embedders_of(task)[place][1]}.backend",
            )
        found[place] = embedder.export
    return found


def _certified(task: Task) -> Manifest:
    versions = open_versions(task)
    current = versions.current()
    manifest = None if current is None else versions.verify(current)
    if manifest is None or not manifest.certified:
        raise ArtifactError(
            f"no version of {task.spec.name} is certified yet in {task.state}, so there is nothing to serve."
            f" Try: tracer-serve fit {task.file}"
        )
    return manifest


def _pack(folder: Path, tag: str) -> str:
    """Build the bento in another process, since BentoML imports the service."""
    name, _, version = tag.partition(":")
    words = [sys.executable, "-c", _PACK, name, version]
    kept = {key: value for key, value in os.environ.items() if key != TASK}
    env = kept | {"BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)  # noqa: S603  # ours
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        home = env.get("BENTOML_HOME") or "~/bentoml"
        raise ArtifactError(f"bentoml build failed: {last}. Is {home} writable, with free space?")
    return done.stdout.splitlines()[-1]
