"""Recorded calls of a real LLM, replayed by a server: the form of `real_call_form.json`, the answers of a CSV's column.

A call of that very form is answered with the label and the confidence that the LLM gave to the text in its slot.
Whatever else comes is a 404, as byte for byte the same prompt was never asked with it.
"""

import csv
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PROMPT_TOKENS = 14_012
"""Prompt tokens of such a call, as the recorded answers say."""


@dataclass
class ReplayLLM:
    """The form and the recorded answers.

    Parameters
    ----------
    answers : label and confidence (0 to 100) by text
    bodies : every body that arrived
    """

    body: Mapping[str, Any]
    prefix: str
    suffix: str
    answers: Mapping[str, tuple[str, float]]
    bodies: list[bytes] = field(default_factory=list)
    refused: int = 0
    url: str = ""

    @property
    def labels(self) -> list[str]:
        """The enum of the schema."""
        labels: list[str] = self.body["extra_body"]["guided_json"]["properties"]["category"]["enum"]
        return labels

    def call(self, text: str, prefix: str | None = None) -> dict[str, Any]:
        """Return the keywords of `client.chat.completions.create` that ask about a text."""
        content = f"{self.prefix if prefix is None else prefix}{text}{self.suffix}"
        return {**self.body, "messages": [{"role": "user", "content": content}]}

    async def reply(self, request: Request) -> Response:
        """Answer a call of the form, refuse any other."""
        raw = await request.body()
        self.bodies.append(raw)
        asked = json.loads(raw)
        content = str(asked["messages"][-1]["content"])
        text = content.removeprefix(self.prefix).removesuffix(self.suffix)
        wanted = {**self.body, **self.body["extra_body"], "messages": self.call(text)["messages"]}
        wanted.pop("extra_body")
        answer = self.answers.get(text)
        if asked != wanted or answer is None:
            self.refused += 1
            return JSONResponse({"error": {"message": "this call was not recorded"}}, 404)
        label, confidence = answer
        said = f'{{\n  "category": "{label}",\n  "confidence": {confidence:.2f}\n}}'
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 25, "total_tokens": PROMPT_TOKENS + 25}
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": asked["model"]}
        return JSONResponse({**head, "choices": [choice], "usage": usage})


def read_recording(folder: Path) -> ReplayLLM:
    """Read the call and the 13,083 recorded answers."""
    form = json.loads((folder / "real_call_form.json").read_text(encoding="utf-8"))
    with (folder / "banking77_llm.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    answers = {row["text"]: (row["qwen3_30b_fewshot"], float(row["qwen3_30b_confidence"])) for row in rows}
    return ReplayLLM(form["body"], form["prefix"], form["suffix"], answers)


@contextmanager
def serve(replay: ReplayLLM) -> Iterator[str]:
    """Serve in a thread; yields the root of the API."""
    app = Starlette(routes=[Route("/v1/chat/completions", replay.reply, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, name="replay-llm", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise OSError("the replay server cannot listen")
        thread.join(0.005)
    replay.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield replay.url
    finally:
        server.should_exit = server.force_exit = True
        thread.join(timeout=10)
