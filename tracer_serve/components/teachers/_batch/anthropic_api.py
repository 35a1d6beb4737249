"""Anthropic's Message Batches API: the requests in one call, the results as JSONL."""

from collections.abc import Mapping
from datetime import datetime, timedelta
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

_PATH = "messages/batches"
_SKEW = timedelta(minutes=5)  # between their clock and this one
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
}


class AnthropicBatches:
    """Batches of messages (docs.anthropic.com/en/docs/build-with-claude/batch-processing)."""

    def __init__(self, endpoint: TeacherEndpoint) -> None:
        self._endpoint = endpoint

    async def submit(self, requests: Mapping[str, Mapping[str, Any]], mark: str) -> str:
        """Make a batch; this API keeps no mark."""
        del mark
        made = {"requests": [{"custom_id": item, "params": body} for item, body in requests.items()]}
        return str((await call_json(self._endpoint, "POST", _PATH, json=made))["id"])

    async def find(self, mark: str, n: int, since: datetime) -> str | None:
        """Return the oldest batch of as many requests since then.

        If it is another one, its results have other ids, so that the requests count as not answered.
        """
        del mark
        listed = await call_json(self._endpoint, "GET", f"{_PATH}?limit={LISTED}")
        later = [
            one["id"]
            for one in listed.get("data", ())
            if sum(one["request_counts"].values()) == n and datetime.fromisoformat(one["created_at"]) >= since - _SKEW
        ]
        return later[-1] if later else None

    async def ended(self, batch: str) -> bool:
        """Return whether the batch has ended."""
        state = await call_json(self._endpoint, "GET", f"{_PATH}/{batch}")
        return bool(state["processing_status"] == "ended")

    async def results(self, batch: str) -> dict[str, Outcome]:
        """Return the lines of the results."""
        text = await call(self._endpoint, "GET", f"{_PATH}/{batch}/results")
        return {line["custom_id"]: self._outcome(line["result"]) for line in lines_of(text)}

    def _outcome(self, result: Mapping[str, Any]) -> Outcome:
        if result["type"] == "errored":
            error = result["error"]
            return refused(self._endpoint, _STATUS.get(error["error"]["type"], 500), error)
        if result["type"] != "succeeded":
            return not_answered(self._endpoint, result["type"])
        return answered(self._endpoint, result["message"])
