"""Client of one OpenAI-compatible chat endpoint: a single try, with typed errors."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Self

import httpx
from pydantic import SecretStr

from tracer_serve.components.teachers._completion import Completion
from tracer_serve.components.teachers._params import BreakerParams, Fallback
from tracer_serve.config.task import PASS_THROUGH
from tracer_serve.errors import TeacherError
from tracer_serve.infra import tracing as telemetry
from tracer_serve.infra.http_endpoint import HttpEndpoint
from tracer_serve.infra.resilience.circuit_breaker import Breaker

_JSON = {"Content-Type": "application/json"}


class TeacherEndpoint:
    """One endpoint of the OpenAI chat API with its circuit breaker.

    Parameters
    ----------
    base_url : root of the API, such as https://api.openai.com/v1
    model : the model's name at this endpoint
    api_key : sent as bearer token; `PASS_THROUGH` sends the key of whoever calls, and none of its own
    headers : further headers; their values are as secret as the key
    timeout_s : limit of one try in seconds, from connecting to the last byte
    breaker : when the endpoint counts as down
    connections : maximum number of open connections

    Raises
    ------
    PluginError
        If the URL is invalid or a key cannot be sent in a header; the message does not show the key.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: SecretStr | None,
        headers: Mapping[str, SecretStr],
        timeout_s: float,
        breaker: BreakerParams,
        connections: int,
    ) -> None:
        self.model, self.timeout_s, self.protocol = model, timeout_s, "openai"
        self.pass_through = api_key is not None and api_key.get_secret_value() == PASS_THROUGH
        own = None if self.pass_through else api_key
        self.http = HttpEndpoint(base_url, api_key=own, headers=headers, error=TeacherError)
        self.name = self.http.name
        self.breaker = Breaker(self.name, failures=breaker.failures, open_s=breaker.open_s)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30.0)
        # httpx restarts its read timeout with each byte; `complete` limits the whole try
        self.client = httpx.AsyncClient(
            base_url=self.http.url, headers=self.http.headers, timeout=timeout_s, limits=limits
        )

    @classmethod
    def of(cls, block: Fallback, model: str, timeout_s: float, breaker: BreakerParams, connections: int) -> Self:
        """Create an endpoint from its YAML block; `model` is the default model name."""
        return cls(
            block.base_url,
            block.model or model,
            api_key=block.api_key,
            headers=block.headers,
            timeout_s=timeout_s,
            breaker=breaker,
            connections=connections,
        )

    async def complete(self, body: Mapping[str, Any]) -> Completion:
        """Send one chat completion request.

        Raises
        ------
        TeacherError
            With ``retry_after_s`` if the endpoint asks to wait; keys are masked in message and answer.
        """
        if self.pass_through:
            raise TeacherError(
                f"{self.name}: api_key is pass_through, so only calls of callers reach it; /v1/classify, replays and"
                " files need a key of their own: set teacher.api_key: ${NAME}",
                reason="rejected",
            )
        url = self.client.base_url
        with self.breaker.attempt(), telemetry.model_call(self.model, url.host, url.port, body) as note:
            if self.client.is_closed:
                raise TeacherError(f"{self.name}: the teacher was closed", reason="unavailable")
            # escaped to ASCII: half a surrogate pair in a text must not break the request
            content = json.dumps({**body, "model": self.model}).encode("ascii")
            headers = _JSON | telemetry.propagated()
            try:
                async with asyncio.timeout(self.timeout_s):
                    answer = await self._post(content, headers)
            except TimeoutError:
                raise TeacherError(f"{self.name} gave no answer in {self.timeout_s:g} s", reason="timeout") from None
            except httpx.HTTPError as error:
                raise self.http.unreachable(error) from None
            completion = Completion.read(answer, self.name)
            note(completion.outcome)
            return completion

    async def _post(self, content: bytes, headers: Mapping[str, str]) -> str:
        """Return the body of a 200 answer; reading stops at 1 MiB."""
        async with self.client.stream("POST", "chat/completions", content=content, headers=headers) as response:
            body = self.http.body_of(response)
            async for chunk in response.aiter_raw():
                body.add(chunk)
        if response.status_code != httpx.codes.OK:
            raise self.http.refusal(response.status_code, response.headers, body.text())
        return body.text()
