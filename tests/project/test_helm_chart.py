"""The Helm chart, rendered by Helm: the objects of the kustomization, with the values put in."""

import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.project.test_deploy import DEPLOY
from tests.project.test_deploy_files import KUBERNETES, OWN

CHART = DEPLOY / "helm"


def rendered(**values: Any) -> list[dict[str, Any]]:
    """Return the chart's objects, by the program `helm` or by Helm's library for Python."""
    if (helm := shutil.which("helm")) is not None:
        words = [helm, "template", "tracer-serve", str(CHART), "--values", "-"]
        text = subprocess.run(words, input=yaml.safe_dump(values), capture_output=True, text=True, check=True).stdout
    else:
        library = pytest.importorskip("helm_python", reason="no helm here, and no helm-python-sdk")
        text = "\n---\n".join(library.Chart.load(str(CHART)).render(values).values())
    return [document for document in yaml.safe_load_all(text) if document]


def test_the_chart_renders_the_objects_of_the_kustomization() -> None:
    """With its defaults, every object is that of deploy/kubernetes but for the image's tag, and right by its schema."""
    objects = {(one["kind"], one["metadata"]["name"]): one for one in rendered()}
    for one in objects.values():
        kubernetes_validate.validate(one, KUBERNETES[-1], strict=True)
    task = objects.pop(("ConfigMap", "task"))["data"]["task.yaml"]
    assert yaml.safe_load(task) == yaml.safe_load((DEPLOY / "kubernetes" / "task.yaml").read_text(encoding="utf-8"))
    theirs = {(one["kind"], one["metadata"]["name"]): one for one in OWN if one["kind"] != "Namespace"}
    assert objects.keys() == theirs.keys()
    for name, one in objects.items():
        assert yaml.safe_dump(one).replace("image: tracer-serve:0.2.0", "image: tracer-serve") == yaml.safe_dump(
            theirs[name]
        )


def test_values_are_put_in() -> None:
    """Image, number of replicas, the refit's schedule and the task are those of the values."""
    values = {
        "image": "registry/x:1",
        "replicas": {"min": 3, "max": 5},
        "schedule": "5 4 * * *",
        "task": "name: other\n",
    }
    objects = {(one["kind"], one["metadata"]["name"]): one for one in rendered(**values)}
    scaler, refit = objects["HorizontalPodAutoscaler", "api"]["spec"], objects["CronJob", "refit"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"], refit["schedule"]) == (3, 5, "5 4 * * *")
    for pod in (objects["Deployment", "api"]["spec"]["template"], refit["jobTemplate"]["spec"]["template"]):
        assert pod["spec"]["containers"][0]["image"] == "registry/x:1"
    assert objects["ConfigMap", "task"]["data"]["task.yaml"] == "name: other\n"
