"""Compose file and Kubernetes manifests: right by their schemas, and true of this server."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.project.test_deploy import DEPLOY
from tracer_serve.cli.main import COMMANDS, parser
from tracer_serve.config.load import load_task
from tracer_serve.server.app import ROUTES

KUBERNETES = ("1.31", "1.34", "1.37")
ROOT = DEPLOY.parent
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text(encoding="utf-8"))
MANIFESTS: list[dict[str, Any]] = [
    document
    for name in KUSTOMIZATION["resources"]
    for document in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text(encoding="utf-8"))
]
OWN = [manifest for manifest in MANIFESTS if not manifest["apiVersion"].startswith("monitoring.coreos.com/")]
"""What Kubernetes itself knows; the rest is for tests/project/test_deploy_monitor.py."""
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
TASKS = [DEPLOY / "compose" / "task.yaml", DEPLOY / "kubernetes" / "task.yaml"]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (m for m in MANIFESTS if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return found


PODS: dict[str, dict[str, Any]] = {
    "api": named("Deployment", "api")["spec"]["template"],
    "refit": named("CronJob", "refit")["spec"]["jobTemplate"]["spec"]["template"],
}


def env_file(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text(encoding="utf-8").splitlines() if "=" in line)


SECRETS = env_file(DEPLOY / "kubernetes" / "secrets.env.example")


def asked_for(task: Path) -> set[str]:
    """Return the variables that a task cannot do without."""
    return set(re.findall(r"\$\{(\w+)\}", task.read_text(encoding="utf-8")))


def test_compose_is_right_by_its_schema() -> None:
    """The schema of the Compose specification has nothing to say, and would have of an unknown key."""
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*words, DEPLOY / "compose" / "compose.yaml"], check=True)


@pytest.mark.parametrize("manifest", OWN, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_manifests_are_right_by_their_schemas(manifest: dict[str, Any]) -> None:
    """Every field is known and of its type in each Kubernetes release named here."""
    for version in KUBERNETES:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_kustomization_renders_what_is_right(tmp_path: Path) -> None:
    """As a person would apply it: every object is right, and the generated ConfigMap and Secret are referred to."""
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("no kubectl here")
    folder = shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    (folder / "secrets.env.example").rename(folder / "secrets.env")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True)
    rendered = list(yaml.safe_load_all(done.stdout))
    assert len(rendered) == len(MANIFESTS) + 2
    for manifest in rendered:
        if not manifest["apiVersion"].startswith("monitoring.coreos.com/"):
            kubernetes_validate.validate(manifest, KUBERNETES[-1], strict=True)
    made = {m["metadata"]["name"] for m in rendered if m["kind"] in ("ConfigMap", "Secret")}
    assert all(name in done.stdout.replace(f"name: {name}", "", 1) for name in made)
    assert set(re.findall(r"image: (\S+)", done.stdout)) == {"tracer-serve:0.2.0"}


def test_every_file_is_used() -> None:
    """The kustomization names every manifest of its folder, and only files that are there."""
    folder = DEPLOY / "kubernetes"
    files = {f for g in KUSTOMIZATION["configMapGenerator"] for f in g["files"]}
    used = {*KUSTOMIZATION["resources"], *files, "kustomization.yaml"}
    assert used == {file.name for file in folder.glob("*.yaml")}
    for generator in KUSTOMIZATION["secretGenerator"]:
        assert all((folder / f"{name}.example").is_file() for name in generator["envs"])
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / "compose" / source).exists(), source


@pytest.mark.parametrize(
    "words",
    [COMPOSE["services"]["server"]["command"], *(pod["spec"]["containers"][0]["args"] for pod in PODS.values())],
    ids=shlex.join,
)
def test_commands_are_ours(words: list[str]) -> None:
    """What follows the image's entry point is what its command line takes."""
    words = words if words[0] in COMMANDS else ["serve", *words]
    assert "/task/task.yaml" in str(parser(words[0]).parse_args(words).task)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.parent.name)
def test_tasks_are_right(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The spec of each deployment loads, keeps traces and versions outside the container, and wants a key."""
    for name in asked_for(task):
        monkeypatch.setenv(name, "postgresql+psycopg://u@h/d" if name == "TRACES_URL" else "s3://a-bucket/versions")
    spec = load_task(task).spec
    assert spec.traces.url
    assert spec.versions.url
    assert spec.server.api_keys


def test_variables_are_known() -> None:
    """Each variable of our containers is documented or asked for by the task; each that the task asks for is given."""
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", text.split("## Environment")[1], re.MULTILINE))
    ours = {
        TASKS[0]: set(COMPOSE["services"]["server"]["environment"]),
        TASKS[1]: {
            *SECRETS,
            *(e["name"] for pod in PODS.values() for e in pod["spec"]["containers"][0].get("env", [])),
        },
    }
    for task, given in ours.items():
        assert asked_for(task) <= given
        unknown = {name for name in given - asked_for(task) - documented if not name.startswith("AWS_")}
        assert not unknown, (task, unknown)


def test_compose_asks_for_what_its_example_lists() -> None:
    """Every ${NAME:?} of the compose file is in .env.example, and nothing else."""
    text = (DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(env_file(DEPLOY / "compose" / ".env.example"))
    assert not re.search(r"\$\{\w+\}", text)


def test_probes_ask_the_routes_of_the_port() -> None:
    """Liveness asks whether the process lives, readiness whether it answers; both without a key."""
    (container,) = PODS["api"]["spec"]["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == int(re.findall(r"EXPOSE (\d+)", DOCKERFILE)[0])
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez", "liveness": "/livez", "readiness": "/readyz",
    }  # fmt: skip
    assert {probe["path"] for probe in probes.values()} <= {route.path for route in ROUTES}
    assert {probe["port"] for probe in probes.values()} == {port["name"]}


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_pods_are_locked_down(pod: dict[str, Any]) -> None:
    """The image's own user, no root, no rights to gain, nothing writable but state and /tmp, memory bounded."""
    (user,) = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["runAsUser"] == int(user)
    assert pod["spec"]["automountServiceAccountToken"] is False
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/state", "/tmp"}
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["spec"]["volumes"]}
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


def test_everything_selects_what_is_there() -> None:
    """Service, budget, autoscaler and network policies mean the API's pods; the monitor means the service's port."""
    label = PODS["api"]["metadata"]["labels"]
    service = named("Service", "api")
    assert service["spec"]["selector"] == label
    assert named("PodDisruptionBudget", "api")["spec"]["selector"]["matchLabels"] == label
    assert named("Deployment", "api")["spec"]["selector"]["matchLabels"] == label
    assert named("NetworkPolicy", "api")["spec"]["podSelector"]["matchLabels"] == label
    assert named("HorizontalPodAutoscaler", "api")["spec"]["scaleTargetRef"]["name"] == "api"
    monitor = named("ServiceMonitor", "api")["spec"]
    assert monitor["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["endpoints"][0]["path"] == "/metrics"
    (components,) = named("NetworkPolicy", "stores-and-teacher")["spec"]["podSelector"]["matchExpressions"]
    assert set(components["values"]) == {pod["metadata"]["labels"][components["key"]] for pod in PODS.values()}


def test_a_stop_is_waited_for() -> None:
    """Kubernetes and Compose give more time than leaving the endpoints and the service's own grace take."""
    from tracer_serve.serving.runtime import GRACE_S  # noqa: PLC0415

    pod = PODS["api"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause + 2 * GRACE_S
    assert COMPOSE["services"]["server"]["stop_grace_period"] == "30s"


def test_prometheus_and_grafana_find_their_files() -> None:
    """The rules and dashboards that are named lie where the containers mount them, and the server is scraped."""
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    assert all((DEPLOY / "prometheus" / rules).is_file() for rules in prometheus["rule_files"])
    (scrape,) = prometheus["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["server:3000"]}]
    provider = yaml.safe_load((DEPLOY / "compose" / "grafana" / "dashboards.yaml").read_text(encoding="utf-8"))
    path = provider["providers"][0]["options"]["path"]
    assert f"../grafana:{path}:ro" in COMPOSE["services"]["grafana"]["volumes"]
    source = yaml.safe_load((DEPLOY / "compose" / "grafana" / "datasource.yaml").read_text(encoding="utf-8"))
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


def test_images_are_pinned() -> None:
    """No container runs whatever is newest."""
    for name, service in COMPOSE["services"].items():
        assert name == "server" or re.search(r":v?\d+\.\d+", service["image"]), name
