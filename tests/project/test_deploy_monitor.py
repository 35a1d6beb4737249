"""The ServiceMonitor by the operator's own schema, as npm's `@kubernetes-models/prometheus-operator` has it.

Its validator says what is missing or of a wrong type; its types, by the TypeScript compiler, what is unknown, which the
validator lets pass as a cluster would: silently dropped.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.project.test_deploy_files import MANIFESTS, OWN

PACKAGES = ("@kubernetes-models/prometheus-operator@6.0.0", "typescript@5.9.3")
_MODEL = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor"
_VALIDATE = f"""
import {{ ServiceMonitor }} from "{_MODEL}";
new ServiceMonitor(JSON.parse(process.argv[2])).validate();
"""
_TYPED = f'import type {{ IServiceMonitor }} from "{_MODEL}";\nexport const monitor: IServiceMonitor = '
_COMPILER = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022")
CUSTOM = [manifest for manifest in MANIFESTS if manifest not in OWN]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node finds the packages."""
    if (npm := shutil.which("npm")) is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    words = [npm, "install", "--silent", "--no-fund", "--no-audit", "--ignore-scripts", *PACKAGES]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm's registry cannot be reached: {done.stderr[-200:]}")
    (folder / "validate.mjs").write_text(_VALIDATE, encoding="utf-8")
    return folder


def problems(packages: Path, manifest: dict[str, Any]) -> str:
    """Return what validator and types say against a manifest."""
    text = json.dumps(manifest)
    (packages / "typed.mts").write_text(_TYPED + text + ";\n", encoding="utf-8")
    node, told = str(shutil.which("node")), []
    for words in (["validate.mjs", text], ["node_modules/typescript/bin/tsc", *_COMPILER, "typed.mts"]):
        run = [node, *words]
        done = subprocess.run(run, cwd=packages, capture_output=True, text=True, check=False)
        told += [done.stdout + done.stderr] if done.returncode else []
    return "\n".join(told)


def changed(**endpoint: Any) -> dict[str, Any]:
    """Return our ServiceMonitor with another endpoint."""
    (monitor,) = CUSTOM
    return {**monitor, "spec": {**monitor["spec"], "endpoints": [endpoint]}}


@pytest.mark.slow
def test_the_monitor_is_right_by_the_operators_schema(packages: Path) -> None:
    """Every custom resource of the manifests is a ServiceMonitor that neither validator nor types object to."""
    assert [manifest["kind"] for manifest in CUSTOM] == ["ServiceMonitor"]
    assert problems(packages, CUSTOM[0]) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("monitor", "said"),
    [
        (changed(port=3000), "data/spec/endpoints/0/port must be string"),
        (changed(prt="http"), "does not exist in type 'IEndpoint'"),
        ({**CUSTOM[0], "spec": {"endpoints": []}}, "must have required property selector"),
    ],
    ids=["type", "unknown", "missing"],
)
def test_a_wrong_monitor_is_found(packages: Path, monitor: dict[str, Any], said: str) -> None:
    """A wrong type, an unknown field and a missing one are each told."""
    assert said in problems(packages, monitor)
