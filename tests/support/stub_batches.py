"""Batch APIs of the stub LLM server: OpenAI's files and batches, Anthropic's message batches.

A batch ends after some looks at it. A row's fate is drawn per batch, so that a row that expires may be answered in the
next one. `answered` counts what a provider would bill.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

Body = dict[str, Any]
Answer = Callable[[Body], Body]


def always(_batch: int, _row: int) -> str:
    """Answer every row."""
    return "ok"


@dataclass
class Batches:
    """State of the batch APIs; change it while the server runs.

    Parameters
    ----------
    looks : at a batch until it has ended
    fate : of a row, by the numbers of its batch and its own: ``ok``, ``expired``, ``cancelled``, or a status
    lose : answers to the next so many submissions do not arrive, although the batches are made
    answered : ids of the answered rows, each once per answer
    submitted : rows of each batch
    """

    looks: int = 2
    fate: Callable[[int, int], str] = always
    lose: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    submitted: list[int] = field(default_factory=list)
    made: dict[str, Body] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def reset(self) -> None:
        """Forget all batches and faults."""
        vars(self).update(vars(Batches()))

    def add(self, rows: list[tuple[str, Body]], **facts: Any) -> Body:
        """Make a batch."""
        name = f"batch_{len(self.made)}"
        self.submitted.append(len(rows))
        self.made[name] = {"id": name, "number": len(self.made), "rows": rows, "looks": 0, **facts}
        return self.made[name]

    def look(self, name: str) -> bool:
        """Look at a batch; return whether it has ended."""
        self.made[name]["looks"] += 1
        return bool(self.made[name]["looks"] >= self.looks)

    def outcomes(self, name: str, answer: Answer) -> list[tuple[str, str, Body]]:
        """Return id, fate and answer of each row; the provider answers once, however often results are read."""
        batch = self.made[name]
        if "outcomes" not in batch:
            fates = [self.fate(batch["number"], row) for row in range(len(batch["rows"]))]
            rows = zip(batch["rows"], fates, strict=True)
            batch["outcomes"] = [(item, fate, answer(body) if fate == "ok" else {}) for (item, body), fate in rows]
            self.answered.update(item for item, fate, _ in batch["outcomes"] if fate == "ok")
        found: list[tuple[str, str, Body]] = batch["outcomes"]
        return found


def openai_routes(batches: Batches, answer: Answer) -> list[Route]:
    """Return the routes of OpenAI's API."""

    async def upload(request: Request) -> Response:
        async with request.form() as form:
            assert form["purpose"] == "batch"
            file: Any = form["file"]
            name = f"file_{len(batches.files)}"
            batches.files[name] = (await file.read()).decode()
        return JSONResponse({"id": name, "object": "file"})

    async def create(request: Request) -> Response:
        body = await request.json()
        assert (body["completion_window"], body["endpoint"]) == ("24h", "/v1/chat/completions")
        lines = [json.loads(line) for line in batches.files[body["input_file_id"]].splitlines()]
        assert all((line["method"], line["url"]) == ("POST", body["endpoint"]) for line in lines)
        rows = [(line["custom_id"], line["body"]) for line in lines]
        return _answered(batches, state(batches.add(rows, metadata=body["metadata"]), ended=False))

    def state(batch: Body, *, ended: bool) -> Body:
        fates = {fate for _, fate, _ in batches.outcomes(batch["id"], answer)} if ended else set()
        files = {"output_file_id": f"out_{batch['id']}" if "ok" in fates else None}
        files["error_file_id"] = f"errors_{batch['id']}" if fates - {"ok"} else None
        status = ("expired" if "expired" in fates else "completed") if ended else "in_progress"
        return {"id": batch["id"], "object": "batch", "status": status, "metadata": batch["metadata"], **files}

    async def content(request: Request) -> Response:
        kind, _, name = request.path_params["name"].partition("_")
        lines = []
        for item, fate, body in batches.outcomes(name, answer):
            if (fate == "ok") != (kind == "out"):
                continue
            response: Body | None = {"status_code": 200, "body": body}
            if fate != "ok":
                response = {"status_code": int(fate), "body": _refusal(fate)} if fate.isdigit() else None
            error = None if fate.isdigit() or fate == "ok" else {"code": f"batch_{fate}", "message": "not processed"}
            lines.append(json.dumps({"custom_id": item, "response": response, "error": error}))
        return PlainTextResponse("\n".join(lines))

    return [
        *_states(batches, "/v1/batches", state),
        Route("/v1/files", upload, methods=["POST"]),
        Route("/v1/files/{name}/content", content),
        Route("/v1/batches", create, methods=["POST"]),
    ]


def anthropic_routes(batches: Batches, answer: Answer) -> list[Route]:
    """Return the routes of Anthropic's API."""

    async def create(request: Request) -> Response:
        body = await request.json()
        rows = [(one["custom_id"], one["params"]) for one in body["requests"]]
        made = batches.add(rows, created=datetime.now(UTC).isoformat())
        return _answered(batches, state(made, ended=False))

    def state(batch: Body, *, ended: bool) -> Body:
        counts = {"processing": len(batch["rows"])}
        status = "ended" if ended else "in_progress"
        facts = {"processing_status": status, "request_counts": counts, "created_at": batch["created"]}
        return {"id": batch["id"], "type": "message_batch", **facts}

    async def results(request: Request) -> Response:
        lines = []
        for item, fate, body in batches.outcomes(request.path_params["name"], answer):
            result: Body = {"type": "succeeded", "message": body}
            if fate.isdigit():
                kind = "invalid_request_error" if fate == "400" else "api_error"
                error = {"type": "error", "error": {"type": kind, "message": "refused"}}
                result = {"type": "errored", "error": error}
            elif fate != "ok":
                result = {"type": {"cancelled": "canceled"}.get(fate, fate)}
            lines.append(json.dumps({"custom_id": item, "result": result}))
        return PlainTextResponse("\n".join(lines))

    return [
        *_states(batches, "/v1/messages/batches", state),
        Route("/v1/messages/batches", create, methods=["POST"]),
        Route("/v1/messages/batches/{name}/results", results),
    ]


def _states(batches: Batches, path: str, state: Callable[..., Body]) -> list[Route]:
    """Return the routes that tell the state of one batch and of all."""

    async def one(request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(state(batches.made[name], ended=batches.look(name)))

    async def every(_: Request) -> Response:
        return JSONResponse({"data": [state(batch, ended=False) for batch in reversed(batches.made.values())]})

    return [Route(path, every), Route(f"{path}/{{name}}", one)]


def _refusal(status: str) -> Body:
    return {"error": {"message": f"refused with {status}", "type": "stub", "code": None}}


def _answered(batches: Batches, state: Body) -> Response:
    """Return the answer to a submission, or an error that hides that it was received."""
    if batches.lose:
        batches.lose -= 1
        return JSONResponse(_refusal("502"), 502)
    return JSONResponse(state)
