"""Stub LLM server of the tests and benches: OpenAI's and Anthropic's APIs, with faults on command.

    python -m tests.support.stub_llm --labels data.csv --port 8080 --share 0.3

It answers a chat completion with the real label of the text that it finds in the last user message. Whoever asks may be
treated badly: `StubLLM.script` names the faults of the next requests, `StubLLM.faults` a share of all of them, and over
HTTP ``POST /control`` and the header ``x-stub-fault`` do the same.
"""

import argparse
import asyncio
import csv
import hashlib
import json
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.support.stub_apis import Messages, Responses
from tests.support.stub_batches import Batches, anthropic_routes, openai_routes

Pair = tuple[str, str]
Body = dict[str, Any]
FORMATS = ("json_schema", "json_object", "tool")
NONSENSE = "As a large language model, I would say it depends."
REFUSAL = "I'm sorry, I can't help with that."


@dataclass
class Faults:
    """Faults by chance: a `share` of the requests, kinds drawn evenly, by seed.

    Parameters
    ----------
    retry_after : value of that header on a 429 or 503; None leaves it out
    latency_s : before any answer, also a good one
    slow_s : how long a ``loris`` or a ``stall`` lasts
    """

    share: float = 0.0
    kinds: tuple[str, ...] = ("429", "500", "503", "reset", "cut", "invalid_json", "loris")
    seed: int = 0
    retry_after: str | None = "0.01"
    latency_s: float = 0.0
    slow_s: float = 30.0


@dataclass
class StubLLM:
    """The server's state; change it while it runs.

    Parameters
    ----------
    labels : text or pair to label
    default : label of a text that is not in `labels`; None answers nonsense
    requests : what arrived, newest last: ``{"path", "headers", "body"}``, and what was answered above the level of
        sockets: ``{"status", "answer"}``
    in_flight, peak : requests under way, and the most there ever were at a time
    formats : structured outputs that chat completions take
    unsupported : status of an answer to another one; 0 ignores it, as some servers do
    """

    labels: Mapping[Any, str] = field(default_factory=dict)
    default: str | None = None
    model: str = "stub-1"
    faults: Faults = field(default_factory=Faults)
    url: str = ""
    requests: deque[Body] = field(default_factory=lambda: deque(maxlen=20_000))
    count: int = 0
    in_flight: int = 0
    peak: int = 0
    script: deque[str] = field(default_factory=deque)
    release: threading.Event = field(default_factory=threading.Event)
    formats: tuple[str, ...] = FORMATS
    unsupported: int = 400
    batches: Batches = field(default_factory=Batches)

    def reset(self) -> None:
        """Release held requests, wait until all have ended, and forget requests and faults; labels stay."""
        self.release.set()
        for _ in range(1000):
            if not self.in_flight:
                break
            time.sleep(0.005)
        self.requests.clear()
        self.script.clear()
        self.count = self.peak = 0
        self.faults, self.default = Faults(), None
        self.formats, self.unsupported = FORMATS, 400
        self.batches.reset()
        self._chance = random.Random(0)

    def hold(self) -> None:
        """Keep every request waiting until `release` is set."""
        self.release.clear()

    def __post_init__(self) -> None:
        self.release.set()
        self._chance = random.Random(self.faults.seed)

    def use(self, faults: Faults) -> None:
        """Set the faults by chance, from the seed's beginning."""
        self.faults, self._chance = faults, random.Random(faults.seed)

    def next_fault(self, wanted: str | None) -> str:
        """Return the fault of this request, ``ok`` for none."""
        if wanted is not None:
            return wanted
        if self.script:
            return self.script.popleft()
        if self._chance.random() < self.faults.share:
            return self._chance.choice(self.faults.kinds)
        return "ok"

    def answer(self, content: str) -> str:
        """Return the label of the text in a message: the message itself, or the longest known text inside it."""
        if content in self.labels:
            return self.labels[content]
        inside = [known for known in self.labels if all(p in content for p in _parts(known))]
        if inside:
            return self.labels[max(inside, key=lambda known: sum(map(len, _parts(known))))]
        return self.default if self.default is not None else NONSENSE


def _parts(known: str | Pair) -> Pair | tuple[str]:
    return (known,) if isinstance(known, str) else known


def app(stub: StubLLM) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return the ASGI application; faults below HTTP are made around Starlette."""
    routes = [
        Route("/v1/chat/completions", _Chat(stub).reply, methods=["POST"]),
        Route("/openai/deployments/{model}/chat/completions", _Chat(stub).azure, methods=["POST"]),
        Route("/v1/responses", _Other(stub, Responses()).reply, methods=["POST"]),
        Route("/v1/messages", _Other(stub, Messages()).reply, methods=["POST"]),
        *openai_routes(stub.batches, _Chat(stub).batched),
        *anthropic_routes(stub.batches, _Other(stub, Messages()).batched),
        Route("/v1/embeddings", _embed, methods=["POST"]),
        Route("/v1/models", lambda _: JSONResponse(_models(stub.model))),
        Route("/control", partial(_control, stub), methods=["POST"]),
    ]
    starlette = Starlette(routes=routes)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/control":
            await starlette(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        body = await _read(receive)
        stub.count += 1
        stub.in_flight += 1
        stub.peak = max(stub.peak, stub.in_flight)
        seen: Body = {"path": scope["path"], "headers": headers, "body": _loads(body)}
        stub.requests.append(seen)
        fault = stub.next_fault(headers.get("x-stub-fault"))
        scope["stub_fault"] = fault

        ended = False

        def end() -> None:
            nonlocal ended
            stub.in_flight -= not ended
            ended = True

        async def record(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen.update(status=message["status"], answer=bytearray())
            else:
                seen["answer"].extend(message.get("body", b""))
                if not message.get("more_body"):
                    end()  # before it is sent: the client may ask again at once
            await send(message)

        async def answer() -> None:
            await asyncio.sleep(stub.faults.latency_s)
            while not stub.release.is_set():  # noqa: ASYNC110  # set from another thread
                await asyncio.sleep(0.005)
            await (_RAW[fault](send, stub.faults.slow_s) if fault in _RAW else starlette(scope, _replay(body), record))

        try:
            await _while_connected(answer(), receive)
        finally:
            end()

    return call


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


def _replay(body: bytes) -> Receive:
    """Give Starlette the body that was already read."""
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return pending.pop() if pending else await asyncio.Event().wait()

    return again


async def _while_connected(answer: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Answer until the client goes away."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(answer), asyncio.create_task(gone())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


async def _start(send: Send, *headers: tuple[bytes, bytes]) -> None:
    head = [(b"content-type", b"application/json"), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": head})


async def _reset(send: Send, _slow_s: float = 0.0) -> None:
    """Break the connection before a byte was answered."""
    send.__self__.transport.abort()  # type: ignore[attr-defined]  # uvicorn's; ASGI has no word for it


async def _cut(send: Send, _slow_s: float) -> None:
    """Promise more bytes than come, then break the connection."""
    await _start(send, (b"content-length", b"2000"))
    await send({"type": "http.response.body", "body": b'{"choices": [{"mess', "more_body": True})
    await asyncio.sleep(0)
    await _reset(send)


async def _loris(send: Send, slow_s: float) -> None:
    """Send a byte now and then: no read ever times out."""
    await _start(send)
    for _ in range(int(slow_s / 0.05)):
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        await asyncio.sleep(0.05)


async def _stall(send: Send, slow_s: float) -> None:
    """Answer nothing for a while."""
    await asyncio.sleep(slow_s)
    await _start(send)


_RAW: dict[str, Callable[[Send, float], Awaitable[None]]] = {
    "reset": _reset,
    "cut": _cut,
    "loris": _loris,
    "stall": _stall,
}


class _Chat:
    """POST /v1/chat/completions, good or bad by the fault's name."""

    def __init__(self, stub: StubLLM) -> None:
        self.stub = stub
        self.api: Responses | Messages = Responses()  # refuses in the same shape

    async def reply(self, request: Request) -> Response:
        fault = request.scope["stub_fault"]
        body: Body = await request.json()
        if fault in _CANNED:
            status, text, media_type = _CANNED[fault]
            return Response(text, status, media_type=media_type)
        if fault == "quota" or fault.isdigit():
            return self._refuse(fault, request)
        if not any(message.get("role") == "user" for message in body.get("messages", ())):
            return JSONResponse(self.api.error(400, "messages: one of a user is required", None), 400)
        wanted = "tool" if body.get("tools") else (body.get("response_format") or {}).get("type")
        if wanted in FORMATS and wanted not in self.stub.formats:
            if self.stub.unsupported:
                return self._refuse(str(self.stub.unsupported), request)
            body = {name: value for name, value in body.items() if name not in ("tools", "response_format")}
        message, finish = _said(self.stub, body, fault)
        usage = _usage(body, message)
        if body.get("stream"):
            return StreamingResponse(_events(body, message, finish, usage, cut=fault == "cut_stream"), media_type=_SSE)
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        return JSONResponse({**_head(body, "chat.completion"), "choices": [choice], "usage": usage})

    def batched(self, body: Body) -> Body:
        """Return the answer to one request of a batch."""
        message, finish = _said(self.stub, body, "ok")
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        return {**_head(body, "chat.completion"), "choices": [choice], "usage": _usage(body, message)}

    async def azure(self, request: Request) -> Response:
        """Answer as Azure OpenAI does: the deployment in the path, the version in the query, the key in its header."""
        if "api-version" not in request.query_params:
            return JSONResponse(self.api.error(404, "Resource not found", "404"), 404)
        if "api-key" not in request.headers:
            return self._refuse("401", request)
        return await self.reply(request)

    def _refuse(self, fault: str, request: Request) -> Response:
        status = 429 if fault == "quota" else int(fault)
        # like some servers, quote the credentials that were sent
        sent = next((v for k in _KEYS if (v := request.headers.get(k))), "no key")
        error = self.api.error(status, f"refused with {status}; you sent {sent}", _CODES.get(fault))
        after = self.stub.faults.retry_after
        headers = {"Retry-After": after} if after is not None and status in (429, 503, 529) else {}
        return JSONResponse(error, status, headers)


class _Other(_Chat):
    """POST to another API, good or bad by the fault's name."""

    def __init__(self, stub: StubLLM, api: Responses | Messages) -> None:
        super().__init__(stub)
        self.api = api

    async def reply(self, request: Request) -> Response:
        fault = request.scope["stub_fault"]
        body: Body = await request.json()
        if fault in _CANNED:
            status, text, media_type = _CANNED[fault]
            return Response(text, status, media_type=media_type)
        if fault == "quota" or fault.isdigit():
            return self._refuse(fault, request)
        if problem := self.api.problem(body, request.headers):
            return JSONResponse(self.api.error(400, problem, None), 400)
        chat = self.api.as_chat(body)
        whole = self._whole(body, chat, fault)
        if not body.get("stream"):
            return JSONResponse(whole, headers={"request-id": "req_stub"})
        events = list(self.api.events(whole))
        kept = events[: len(events) // 2] if fault == "cut_stream" else events
        written = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in kept)
        return StreamingResponse(written, media_type=_SSE)

    def batched(self, body: Body) -> Body:
        """Return the answer to one request of a batch."""
        return self._whole(body, self.api.as_chat(body), "ok")

    def _whole(self, body: Body, chat: Body, fault: str) -> Body:
        message, finish = _said(self.stub, chat, fault)
        return self.api.answer(body, message, finish, _usage(chat, message))


_KEYS = ("authorization", "x-api-key", "api-key")
_CODES = {"401": "invalid_api_key", "429": "rate_limit_exceeded", "quota": "insufficient_quota"}


def _said(stub: StubLLM, body: Body, fault: str) -> tuple[Body, str]:
    """Return message and finish reason of a chat completion."""
    content = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")
    label = NONSENSE if fault == "nonsense" else stub.answer(_text_of(content))
    if fault == "refusal":
        return {"role": "assistant", "content": None, "refusal": REFUSAL}, "stop"
    if fault == "length":
        return {"role": "assistant", "content": label[:3]}, "length"
    if fault.startswith("say:"):
        return {"role": "assistant", "content": fault.removeprefix("say:")}, "stop"
    return _message(body, label)


_SSE = "text/event-stream"
_CANNED = {
    "invalid_json": (200, '{"choices": [{"message": {"content": ', "application/json"),
    "empty": (200, '{"choices": []}', "application/json"),
    "html": (200, "<html>Sign in</html>", "text/html"),
    "502": (502, "<html>Bad Gateway</html>", "text/html"),
}


def _text_of(content: str | list[Body]) -> str:
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def _message(body: Body, label: str) -> tuple[Body, str]:
    """Return the answer in the shape that was asked for: a tool call, a JSON object, or the bare label."""
    tools = body.get("tools") or []
    if tools and body.get("tool_choice") != "none":
        function = tools[0]["function"]
        arguments = json.dumps(_fill(function.get("parameters", {}), label))
        call = {"id": "call_1", "type": "function", "function": {"name": function["name"], "arguments": arguments}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        label = json.dumps(_fill(wanted["json_schema"]["schema"], label))
    elif wanted.get("type") == "json_object" and "schema" in wanted:  # as llama.cpp takes it
        label = json.dumps(_fill(wanted["schema"], label))
    return {"role": "assistant", "content": label, "refusal": None}, "stop"


def _fill(schema: Body, label: str) -> Body:
    """Return an object of the schema: the label in the property with an enum, or in the first; blanks elsewhere.

    A label that is a JSON object fills the properties of its names.
    """
    properties: dict[str, Body] = schema.get("properties", {})
    definitions = schema.get("$defs", {})
    resolved = {k: definitions.get(str(v.get("$ref", "")).rpartition("/")[2], v) for k, v in properties.items()}
    slot = next((k for k, v in resolved.items() if "enum" in v or "const" in v), next(iter(resolved), "label"))
    blank = {"string": "", "number": 0.5, "integer": 0, "boolean": False, "array": [], "object": {}}
    made = {k: blank.get(v.get("type", "")) for k, v in resolved.items()}
    if label.startswith("{"):
        whole = json.loads(label)
        return made | {k: whole[k] for k in made if k in whole}
    return {**made, slot: label}


def _head(body: Body, kind: str) -> Body:
    return {"id": "chatcmpl-stub", "object": kind, "created": int(time.time()), "model": body.get("model", "stub-1")}


def _usage(body: Body, message: Body) -> Body:
    """Count a token for each word."""
    prompt = sum(len(_text_of(m.get("content") or "").split()) for m in body["messages"])
    completion = len(json.dumps(message.get("content") or message.get("tool_calls")).split())
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _events(body: Body, message: Body, finish: str, usage: Body, *, cut: bool) -> AsyncIterator[bytes]:
    """Yield the answer as server-sent events, a few characters each; a cut stream ends without its end."""
    head = _head(body, "chat.completion.chunk")

    def event(delta: Body, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"

    yield event({"role": "assistant", "content": ""})
    if message.get("tool_calls"):
        yield event({"tool_calls": [{"index": 0, **call} for call in message["tool_calls"]]})
    content = message.get("content") or ""
    for start in range(0, len(content), 4):
        yield event({"content": content[start : start + 4]})
        if cut:
            return
    yield event({}, finish)
    if (body.get("stream_options") or {}).get("include_usage"):
        yield b"data: " + json.dumps({**head, "choices": [], "usage": usage}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


async def _embed(request: Request) -> Response:
    """Answer with a unit vector per text, of hashed words: equal texts are equal, similar ones similar."""
    body = await request.json()
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    size = body.get("dimensions", 64)
    data = [{"object": "embedding", "index": i, "embedding": _vector(text, size)} for i, text in enumerate(texts)]
    tokens = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": body.get("model"), "usage": usage})


def _vector(text: str, size: int) -> list[float]:
    vector = [0.0] * size
    for word in text.lower().split() or [""]:
        hashed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
        vector[hashed % size] += 1.0 if hashed >> 63 else -1.0
    norm = sum(x * x for x in vector) ** 0.5 or 1.0
    return [x / norm for x in vector]


def _models(model: str) -> Body:
    return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "stub"}]}


async def _control(stub: StubLLM, request: Request) -> Response:
    """Set faults (any field of `Faults`), ``script`` (a list) or ``default``; answer with what was seen so far."""
    wanted: Any = await request.json()
    if "script" in wanted:
        stub.script = deque(wanted.pop("script"))
    if "default" in wanted:
        stub.default = wanted.pop("default")
    if wanted:
        wanted["kinds"] = tuple(wanted.get("kinds", Faults.kinds))
        stub.use(Faults(**wanted))
    return JSONResponse({"count": stub.count, "in_flight": stub.in_flight, "peak": stub.peak})


@contextmanager
def serve(stub: StubLLM, port: int = 0) -> Iterator[StubLLM]:
    """Serve in a thread until the block ends; `stub.url` is the ``base_url`` for clients."""
    config = uvicorn.Config(
        app(stub), port=port, log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="stub-llm", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise OSError(f"the stub cannot listen on port {port}")
        time.sleep(0.005)
    stub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield stub
    finally:
        stub.release.set()
        server.should_exit = server.force_exit = True
        thread.join(timeout=10)


def read_labels(file: Path) -> dict[str | Pair, str]:
    """Read text and label: the first two columns of a CSV with a header, or JSONL."""
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix == ".csv":
            return {row[0]: row[1] for row in list(csv.reader(lines))[1:]}
        rows = [json.loads(line) for line in lines if line.strip()]
    return {_first(row, "input", "text"): _first(row, "teacher", "label", "teacher_label") for row in rows}


def _first(row: Body, *names: str) -> Any:
    return next(row[name] for name in names if name in row)


def main() -> None:
    """Serve from the command line, until interrupted."""
    parser = argparse.ArgumentParser(description="Stub of an OpenAI-compatible LLM server.")
    parser.add_argument("--labels", type=Path, required=True, help="CSV (text, label) or JSONL of known texts")
    parser.add_argument("--default", help="label of an unknown text; without it, nonsense")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--share", type=float, default=0.0, help="share of requests that fail")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    faults = Faults(share=args.share, seed=args.seed, latency_s=args.latency)
    with serve(StubLLM(read_labels(args.labels), args.default, faults=faults), args.port) as stub:
        print(stub.url, flush=True)  # noqa: T201
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
