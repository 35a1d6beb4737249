"""Run code in the environment of tracer-llm 0.3.3, made on first use under ``.bench/peer-venv``.

The peer pins numpy below 2.1 and unpickles its own models, so it never shares an interpreter with ours. Its base
package needs no torch; should an extra of it pull torch, install ``torch==2.13.0`` (CPU) first, as ours has it,
or pip fetches a CUDA build.
"""

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PEER = "tracer-llm==0.3.3"
ROOT = Path(__file__).resolve().parent.parent / ".bench"

# Runs in the peer's interpreter, so it may import nothing of ours.
_RUNNER = """
import json, resource, runpy, sys, time
from pathlib import Path
import numpy as np

script, folder = Path(sys.argv[1]), Path(sys.argv[2])
with np.load(folder / "in.npz", allow_pickle=False) as file:
    arrays = dict(file)
arrays.update(json.loads((folder / "in.json").read_text()))
main = runpy.run_path(str(script))["main"]
wall, cpu = time.perf_counter(), time.process_time()
result = dict(main(arrays))
result.update(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu,
              peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
dense = {k: v for k, v in result.items() if isinstance(v, np.ndarray) and v.dtype != object}
np.savez(folder / "out.npz", **dense)
plain = lambda v: v.item() if isinstance(v, np.generic) else str(v)
(folder / "out.json").write_text(json.dumps({k: v for k, v in result.items() if k not in dense}, default=plain))
"""


def peer_python() -> Path:
    """Return the interpreter of the peer's environment."""
    return environment("peer", PEER)


def environment(name: str, *packages: str) -> Path:
    """Return the interpreter of an environment that has some packages, making the environment if it is missing.

    Raises
    ------
    RuntimeError
        If the environment cannot be made; carries pip's last words.
    """
    venv = ROOT / f"{name}-venv"
    ready, python, wanted = venv / ".ready", venv / "bin" / "python", "\n".join(packages)
    ROOT.mkdir(exist_ok=True)
    with (ROOT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # processes that start together make it once
        if not (ready.exists() and ready.read_text() == wanted):
            _call([sys.executable, "-m", "venv", "--clear", str(venv)])
            _call([str(python), "-m", "pip", "install", "--quiet", *packages])
            ready.write_text(wanted)
    return python


def run_in_peer(script: str | Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Call ``main(arrays)`` of a script inside the peer's environment.

    Parameters
    ----------
    script : path of a Python file, or its source; defines ``main(arrays: dict) -> dict`` and may ``import tracer``
    arrays : numpy arrays (never of dtype object) travel as npz, everything else as JSON

    Returns
    -------
    What ``main`` returned, arrays as arrays and the rest as plain values, with ``wall_s``, ``cpu_s`` (of ``main``, all
    threads) and ``peak_mb`` (of the whole process) added. What the script prints to stderr is passed through.

    Raises
    ------
    RuntimeError
        If the environment cannot be made or the script fails.

    Examples
    --------
    >>> script = "def main(a): return {'twice': a['x'] * 2}"
    >>> run_in_peer(script, {"x": np.arange(2)})["twice"].tolist()  # doctest: +SKIP
    [0, 2]
    """
    python = peer_python()
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        folder = Path(name)
        if isinstance(script, str):
            (folder / "script.py").write_text(script, encoding="utf-8")
            script = folder / "script.py"
        (folder / "runner.py").write_text(_RUNNER, encoding="utf-8")
        dense = {key: value for key, value in arrays.items() if isinstance(value, np.ndarray)}
        np.savez(folder / "in.npz", allow_pickle=False, **dense)
        (folder / "in.json").write_text(json.dumps({k: v for k, v in arrays.items() if k not in dense}))
        # Our own package must not be importable there, and the hash order must not vary between runs.
        environment = {**os.environ, "PYTHONPATH": "", "PYTHONHASHSEED": "0"}
        command = [str(python), str(folder / "runner.py"), str(Path(script).resolve()), name]
        done = subprocess.run(command, env=environment, cwd=name, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RuntimeError(f"the script failed in the peer's environment, exit code {done.returncode}; see above")
        result: dict[str, Any] = json.loads((folder / "out.json").read_text())
        with np.load(folder / "out.npz", allow_pickle=False) as file:
            result.update(file)
    return result


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
