"""OpenAI's Batch API: a file of requests, a batch, and files of outputs and errors."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tracer_serve.components.teachers._batch.api import (
    LISTED,
    Outcome,
    answered,
    call,
    call_json,
    lines_of,
    not_answered,
    refused,
)
from tracer_serve.components.teachers._endpoint import TeacherEndpoint
from tracer_serve.errors import TeacherError

_URL = "/v1/chat/completions"
_ENDED = frozenset({"completed", "expired", "cancelled"})
_MARK = "tracer_serve"
_OK = 200


class OpenAIBatches:
    """Batches of chat completions (platform.openai.com/docs/guides/batch)."""

    def __init__(self, endpoint: TeacherEndpoint) -> None:
        self._endpoint = endpoint

    async def submit(self, requests: Mapping[str, Mapping[str, Any]], mark: str) -> str:
        """Upload the requests as a file and make a batch of it; `mark` is in its metadata."""
        lines = (
            json.dumps({"custom_id": item, "method": "POST", "url": _URL, "body": body})
            for item, body in requests.items()
        )
        upload = {"file": ("requests.jsonl", "\n".join(lines).encode("ascii"), "application/jsonl")}
        file = await call_json(self._endpoint, "POST", "files", data={"purpose": "batch"}, files=upload)
        made = {"input_file_id": file["id"], "endpoint": _URL, "completion_window": "24h", "metadata": {_MARK: mark}}
        return str((await call_json(self._endpoint, "POST", "batches", json=made))["id"])

    async def find(self, mark: str, n: int, since: datetime) -> str | None:
        """Return the latest batch with this mark."""
        del n, since
        listed = await call_json(self._endpoint, "GET", f"batches?limit={LISTED}")
        found = (one["id"] for one in listed.get("data", ()) if (one.get("metadata") or {}).get(_MARK) == mark)
        return next(found, None)

    async def ended(self, batch: str) -> bool:
        """Return whether the batch has ended; one that failed its validation is an error."""
        state = await call_json(self._endpoint, "GET", f"batches/{batch}")
        if state["status"] == "failed":
            errors = (state.get("errors") or {}).get("data") or [{}]
            said = self._endpoint.http.hide(str(errors[0].get("message")))
            raise TeacherError(f"{self._endpoint.name} refused the batch {batch}: {said}", reason="rejected")
        return state["status"] in _ENDED

    async def results(self, batch: str) -> dict[str, Outcome]:
        """Return the lines of the output file and of the error file."""
        state = await call_json(self._endpoint, "GET", f"batches/{batch}")
        found: dict[str, Outcome] = {}
        for name in ("error_file_id", "output_file_id"):
            if state.get(name):
                text = await call(self._endpoint, "GET", f"files/{state[name]}/content")
                found |= {line["custom_id"]: self._outcome(line) for line in lines_of(text)}
        return found

    def _outcome(self, line: Mapping[str, Any]) -> Outcome:
        response = line.get("response")
        if not response:
            return not_answered(self._endpoint, str((line.get("error") or {}).get("code")))
        if response["status_code"] != _OK:
            return refused(self._endpoint, response["status_code"], response["body"])
        return answered(self._endpoint, response["body"])
