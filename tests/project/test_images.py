"""Images that are really built and run: the Dockerfile's, and a bento's."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.images import ENV, buildah, make_base, megabytes, running, usable
from tests.support.server_process import free_port
from tests.support.tasks import CONFIGS
from tracer_serve.server.bento.bundle import BASE

ROOT = Path(__file__).parents[2]
TEXT = "where is my new card, it has not come"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not usable(), reason="needs root and: apt-get install buildah debootstrap"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    tag = f"docker.io/library/{BASE}"
    make_base(tag, tmp_path_factory.mktemp("base") / "root")
    return tag


def test_the_dockerfiles_image_serves(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its layers hold at most 450 MB; as uid 10001 it fits, answers, replaces a killed worker, and ends on SIGTERM."""
    port = free_port()
    buildah(
        "bud", "--layers", "--network", "host", "--pull-never", "--quiet", "--tag", "tracer-serve:test", ".", cwd=ROOT
    )
    layers = megabytes("tracer-serve:test") - megabytes(base)
    words = ["configs/banking.yaml", "--host", "127.0.0.1", "--port", str(port)]
    with running("tracer-serve:test", port, words, user=10001) as container:
        answer = container.client.post("/v1/classify", json={"input": TEXT})
        assert answer.headers["x-tracer-decision"] == "handled"
        back_s = container.replace_worker()
        assert container.client.post("/v1/classify", json={"input": TEXT}).is_success
    with capsys.disabled():
        sys.stdout.write(
            f"\nimage: {layers:.0f} MB of layers, ready in {container.start_s:.0f} s, worker back in {back_s:.1f} s"
        )
    assert layers < 450


def test_a_bentos_image_serves(base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`bentoml containerize` of a bento makes an image that answers as its user, and replaces a killed worker."""
    shutil.copytree(CONFIGS, tmp_path / "tasks")
    task = str(tmp_path / "tasks" / "banking.yaml")
    env = ENV | {"TRACER_SERVE_STATE": str(tmp_path / "state"), "BENTOML_HOME": str(tmp_path / "bentos")}
    for words in (["fit", task], ["build", task, "--tag", "banking:image"]):
        subprocess.run([sys.executable, "-m", "tracer_serve", *words], cwd=tmp_path, env=env, check=True)
    options = ["--backend", "buildah", "--opt", "network=host", "--opt", "pull-never", "--image-tag", "bento:test"]
    command = [str(Path(sys.executable).parent / "bentoml"), "containerize", "banking:image", *options]
    subprocess.run(command, env=env, check=True)
    layers, port = megabytes("bento:test") - megabytes(base), free_port()
    with running("bento:test", port, ["--host", "127.0.0.1", "--port", str(port)], user=1034) as container:
        answer = container.client.post("/v1/classify", json={"input": TEXT})
        assert answer.headers["x-tracer-decision"] == "handled"
        back_s = container.replace_worker()
        assert container.client.post("/v1/classify", json={"input": TEXT}).is_success
    with capsys.disabled():
        sys.stdout.write(
            f"\nbento: {layers:.0f} MB of layers, ready in {container.start_s:.0f} s, worker back in {back_s:.1f} s"
        )
