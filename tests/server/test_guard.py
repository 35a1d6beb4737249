"""Keys and limits."""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.server.worlds import HANDLED, make_version, serving
from tracer_serve.config.load import Task
from tracer_serve.config.server import ApiKey, ServerSpec
from tracer_serve.errors import EmbedderError, SpecError, StoreError
from tracer_serve.server.app import ROUTES, make_app
from tracer_serve.server.http.api_keys import Keys
from tracer_serve.server.http.auth import OPEN, Loopback
from tracer_serve.server.http.errors import respond
from tracer_serve.server.http.rate_limit import Buckets
from tracer_serve.server.process.address import require_keys
from tracer_serve.server.routes.response_models import ErrorBody
from tracer_serve.serving.runtime import Runtime

MakeTask = Callable[..., Task]
FIRST, SECOND = "first-key-of-a-caller", "second-key-of-another"
HASH = "sha256:" + hashlib.sha256(SECOND.encode()).hexdigest()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def keyed(task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    monkeypatch.setenv("FIRST_KEY", FIRST)
    monkeypatch.setenv("ADMIN", "the-operators-own-key")

    def make(**server: Any) -> Task:
        return task(server={"api_keys": ["${FIRST_KEY}", HASH], "admin_key": "${ADMIN}"} | server)

    return make


@pytest.mark.anyio
async def test_every_route_but_the_open_ones_wants_a_key(keyed: MakeTask) -> None:
    """Also routes that are not there, so that nobody can map them; the answer is an error object."""
    paths = [route.path.replace("{number}", "1").replace("{path:path}", "embeddings") for route in ROUTES] + ["/nope"]
    async with serving(keyed()) as (client, _):
        answers = {path: await client.get(path) for path in paths if not path.startswith("/admin/")}
        page = await client.get("/", auth=("anybody", SECOND))
    for path, answer in answers.items():
        assert (answer.status_code == 200) == (path in OPEN), path
        if path not in OPEN:
            assert answer.json()["error"]["type"] == "authentication_error"
            if path != "/v1/messages":  # whose errors have another shape
                assert ErrorBody.model_validate(answer.json()).error.code == "missing_api_key"
            assert answer.headers["www-authenticate"].startswith("Bearer" if path.startswith("/v1/") else "Basic ")
    assert page.status_code == 200


@pytest.mark.anyio
async def test_each_key_opens_and_no_other(keyed: MakeTask) -> None:
    """A key from the environment and one known by its hash; the hash itself, a part and the admin's key do not."""
    spec = keyed()
    make_version(spec)
    async with serving(spec) as (client, _):
        for key, status in (
            (FIRST, 200),
            (SECOND, 200),
            (HASH, 401),
            (FIRST[:-1], 401),
            ("the-operators-own-key", 403),
        ):
            answer = await client.post("/v1/classify", json={"input": HANDLED}, headers=bearer(key))
            assert answer.status_code == status
        refits = [await client.post("/admin/refit", headers=bearer(k)) for k in (FIRST, "the-operators-own-key")]
    assert [answer.status_code for answer in refits] == [403, 202]


@pytest.mark.anyio
async def test_a_caller_that_asks_too_much_is_told_when_to_come_back(keyed: MakeTask) -> None:
    """The limit is each key's own; headers count down; probes are not counted."""
    async with serving(keyed(rate_limit=2)) as (client, _):
        answers = [await client.get("/v1/models", headers=bearer(FIRST)) for _ in range(3)]
        other = await client.get("/v1/models", headers=bearer(SECOND))
        probes = [(await client.get("/livez")).status_code for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"2"}
    assert 25 <= int(answers[2].headers["retry-after"]) <= 30
    assert ErrorBody.model_validate(answers[2].json()).error.code == "rate_limit_exceeded"
    assert (other.status_code, probes) == (200, [200] * 5)


@pytest.mark.anyio
async def test_without_keys_the_limit_is_by_address(task: MakeTask) -> None:
    """A limit alone needs no keys."""
    async with serving(task(server={"rate_limit": 1})) as (client, _):
        answers = [await client.get("/v1/models") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]


def test_tokens_come_back_evenly_and_never_pile_up() -> None:
    """Any window of a minute allows at most the bucket and what came back meanwhile."""
    now = [0.0]
    buckets = Buckets(60, clock=lambda: now[0])
    assert [buckets.take("a").allowed for _ in range(61)] == [True] * 60 + [False]
    now[0] = 1.0
    assert [buckets.take("a").allowed for _ in range(2)] == [True, False]
    assert buckets.take("a").retry_s == pytest.approx(1.0)
    now[0] = 1e6
    assert buckets.take("a").remaining == 59


def test_callers_without_end_take_bounded_memory() -> None:
    """Whoever was away the longest is forgotten."""
    buckets = Buckets(60)
    for i in range(10_500):
        buckets.take(str(i))
    assert len(buckets._held) == 10_000


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic", "Basic ?", "Basic YQ==", "Digest x", "\udcff", "Bearer \udcff"]
)
def test_broken_headers_are_nobodys(header: str) -> None:
    """Whatever is sent, the answer is no, not an error."""
    assert Keys([ApiKey(key=SecretStr(FIRST))]).caller(header) is None


@pytest.mark.parametrize("key", ["schlüssel-0123456789", "à-la-carte-0123456789-à"])
def test_a_key_of_other_letters_opens(key: str) -> None:
    """Clients send the bytes of its UTF-8, and the server reads a header as Latin-1."""
    assert Keys([ApiKey(key=SecretStr(key))]).caller(f"Bearer {key.encode().decode('latin-1')}") is not None


def test_a_browser_sends_the_key_as_password() -> None:
    """Any user name will do."""
    sent = base64.b64encode(f"me:{FIRST}".encode()).decode()
    assert Keys([ApiKey(key=SecretStr(FIRST))]).caller(f"Basic {sent}") == Keys([ApiKey(key=SecretStr(FIRST))]).caller(
        f"Bearer {FIRST}"
    )


def test_keys_in_a_file_are_refused_unless_hashed_and_never_shown(
    task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A literal key names its field; a short one is refused without being quoted; a spec's repr shows none."""
    with pytest.raises(SpecError, match=r"server\.api_keys\[0\]: a literal secret"):
        task(server={"api_keys": [FIRST]})
    monkeypatch.setenv("SHORT", "hunter2")
    with pytest.raises(SpecError, match="can be guessed") as caught:
        task(server={"api_keys": ["${SHORT}"]})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SpecError, match="can be guessed"):
        task(server={"admin_key": "${SHORT}"})
    monkeypatch.setenv("LONG", FIRST)
    assert FIRST not in repr(task(server={"api_keys": ["${LONG}"]}).spec)


@pytest.mark.anyio
async def test_a_server_that_others_bound_answers_its_own_machine_only(task: MakeTask) -> None:
    """Where no key is asked for; probes are answered to whoever asks."""
    app = Loopback(make_app(task(), schedule=False))
    for host, statuses in (("127.0.0.1", (404, 200)), ("192.0.2.7", (403, 200)), ("0.0.0.0", (403, 200))):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=f"http://{host}") as client:
            found = [(await client.get(path)).status_code for path in ("/nope", "/livez")]
        assert tuple(found) == statuses


@pytest.mark.anyio
async def test_what_is_wrong_is_told_to_those_with_a_key(keyed: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes need none, so they say no more than that something is."""
    monkeypatch.setattr(Runtime, "problems", lambda _: ["no space left on /srv/state"])
    async with serving(keyed()) as (client, _):
        ready = await client.get("/readyz")
        health = await client.get("/healthz", headers=bearer(FIRST))
    assert ready.json()["problems"] == ["/healthz has the details"]
    assert "/srv/state" in health.text


def test_errors_of_the_inside_name_no_path_and_no_host() -> None:
    """Store and embedder name them in their words, which are for the log."""
    for error in (
        StoreError("/srv/state/traces.db is full"),
        EmbedderError("https://10.0.0.7/v1 returned no vectors", reason="unavailable"),
    ):
        answer = respond(error)
        assert answer.status_code == 503
        assert not {"/srv", "10.0"} & {bytes(answer.body).decode()[i : i + 4] for i in range(len(answer.body))}


def test_beyond_loopback_it_binds_with_keys_only() -> None:
    """Unless somebody says that this is meant."""
    for host in ("0.0.0.0", "::", "192.0.2.7"):
        with pytest.raises(SpecError, match=r"server\.host: .*--insecure"):
            require_keys(ServerSpec(host=host), insecure=False)
        require_keys(ServerSpec(host=host), insecure=True)
        require_keys(ServerSpec(host=host, api_keys=(ApiKey(key=SecretStr(FIRST)),)), insecure=False)
    for host in ("127.0.0.1", "::1", "localhost"):
        require_keys(ServerSpec(host=host), insecure=False)
