"""What the batch APIs of OpenAI and Anthropic have in common, and calls of their endpoints."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol

import httpx

from tracer_serve.components.teachers._completion import Completion
from tracer_serve.components.teachers._endpoint import TeacherEndpoint
from tracer_serve.errors import TeacherError
from tracer_serve.infra.http_endpoint import MIB

Outcome = Completion | TeacherError
_CALL_S = 600.0  # one call; a file of requests or results takes minutes on a slow line
_LARGEST = 512 * MIB
_CANCELLED = frozenset({"batch_cancelled", "canceled"})
LISTED = 100
"""Latest batches among which `BatchApi.find` looks."""


class BatchApi(Protocol):
    """One provider's batch API. Every method raises `TeacherError`."""

    async def submit(self, requests: Mapping[str, Mapping[str, Any]], mark: str) -> str:
        """Submit bodies of calls by their id; return the batch's id. `mark` is kept with it where the API can."""

    async def find(self, mark: str, n: int, since: datetime) -> str | None:
        """Return the batch that was submitted with this mark, of n requests, since then, if it was received."""

    async def ended(self, batch: str) -> bool:
        """Return whether nothing of a batch will be answered any more.

        Raises
        ------
        TeacherError
            ``rejected`` if the batch as a whole was.
        """

    async def results(self, batch: str) -> dict[str, Outcome]:
        """Return what came of each request of an ended batch, by its id; expired ones are ``unavailable``."""


async def call(endpoint: TeacherEndpoint, method: str, path: str, **request: Any) -> str:
    """Call an endpoint's API and return the body of its answer.

    Parameters
    ----------
    path : below the endpoint's root
    request : as `httpx.AsyncClient.request` takes it

    Raises
    ------
    TeacherError
        With the status that was answered, if any.
    """
    client, http = endpoint.client, endpoint.http
    try:
        async with asyncio.timeout(_CALL_S), client.stream(method, path, timeout=_CALL_S, **request) as response:
            body = http.body_of(response, _LARGEST)
            async for chunk in response.aiter_raw():
                body.add(chunk)
    except TimeoutError:
        raise TeacherError(f"{endpoint.name} gave no answer in {_CALL_S:g} s", reason="timeout") from None
    except httpx.HTTPError as error:
        raise http.unreachable(error) from None
    if not response.is_success:
        raise http.refusal(response.status_code, response.headers, body.text())
    return body.text()


async def call_json(endpoint: TeacherEndpoint, method: str, path: str, **request: Any) -> dict[str, Any]:
    """Call an endpoint's API and return the JSON object that it answers."""
    try:
        found = json.loads(await call(endpoint, method, path, **request))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise TeacherError(f"{endpoint.name} answered {path}, but not with a JSON object", reason="unavailable")
    return found


def lines_of(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of JSONL with their ``custom_id``; damaged lines count as not answered."""
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("custom_id"), str):
            yield found


def answered(endpoint: TeacherEndpoint, body: object) -> Outcome:
    """Return the completion in the answer to one request of a batch, or why there is none."""
    try:
        return endpoint.dialect.read(json.dumps(body), endpoint.name)
    except TeacherError as error:
        return error


def refused(endpoint: TeacherEndpoint, status: int, body: object) -> TeacherError:
    """Return the error of one request of a batch, as a call of its own would have raised it."""
    error = endpoint.http.refusal(status, httpx.Headers(), json.dumps(body))
    return TeacherError(str(error), reason=error.reason)


def not_answered(endpoint: TeacherEndpoint, why: str) -> TeacherError:
    """Return the error of a request that may be asked again, unless a person cancelled its batch.

    Parameters
    ----------
    why : as the provider says it
    """
    reason = "rejected" if why in _CANCELLED else "unavailable"
    return TeacherError(f"{endpoint.name} did not answer this request of a batch: {why}", reason=reason)
