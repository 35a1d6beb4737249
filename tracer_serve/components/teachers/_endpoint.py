"""Client of one LLM endpoint: a single try, with typed errors."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from tracer_serve.components.teachers._answer_format import AnswerFormat, Mode, is_refusal
from tracer_serve.components.teachers._completion import Completion
from tracer_serve.components.teachers._dialect import Dialect
from tracer_serve.components.teachers._params import BreakerParams, Fallback
from tracer_serve.config.task import PASS_THROUGH
from tracer_serve.errors import TeacherError
from tracer_serve.infra import tracing as telemetry
from tracer_serve.infra.http_endpoint import HttpEndpoint
from tracer_serve.infra.resilience.circuit_breaker import Breaker

_JSON = {"Content-Type": "application/json"}


class TeacherEndpoint:
    """One endpoint of an LLM API with its circuit breaker.

    Parameters
    ----------
    block : root of the API, key (`PASS_THROUGH` sends the caller's key, and no key of its own), headers, and the
        model's name at this endpoint
    dialect : of the API
    answer_format : the structured output that it is asked for
    model : where `block` names none
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
        block: Fallback,
        dialect: Dialect,
        answer_format: AnswerFormat,
        *,
        model: str,
        timeout_s: float,
        breaker: BreakerParams,
        connections: int,
    ) -> None:
        self.model, self.timeout_s, self.format = block.model or model, timeout_s, answer_format
        self.dialect, self.protocol = dialect, dialect.protocol
        self.pass_through = block.api_key is not None and block.api_key.get_secret_value() == PASS_THROUGH
        own = None if self.pass_through else block.api_key
        secrets, bearer = dialect.keyed(own, block.headers), own if dialect.key_header is None else None
        root, self.query = block.base_url, b""
        if block.api_version is not None:
            root = f"{root.rstrip('/')}/openai/deployments/{quote(self.model, safe='')}"
            self.query = f"api-version={block.api_version}".encode("ascii")
        self.http = HttpEndpoint(root, api_key=bearer, headers=secrets, error=TeacherError)
        self.name = self.http.name
        self.breaker = Breaker(self.name, failures=breaker.failures, open_s=breaker.open_s)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30.0)
        # httpx restarts its read timeout with each byte; `complete` limits the whole try
        self.client = httpx.AsyncClient(
            base_url=self.http.url, headers={**dialect.headers, **self.http.headers}, timeout=timeout_s, limits=limits
        )

    async def complete(self, body: Mapping[str, Any]) -> Completion:
        """Ask for a completion, in the strictest format that the endpoint takes.

        While that is being found out, a refused format is no outage: the breaker counts the last try only.

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
        failed: dict[Mode, int] = {}
        *others, last = self.format.modes
        with self.breaker.attempt():
            for mode in others:
                try:
                    completion = await self._try({**body, **self.format.fields(mode)})
                except TeacherError as error:
                    if not is_refusal(error.status):
                        raise
                    failed[mode] = error.status or 0
                    continue
                if self._in_format(completion):
                    self.format.answered(mode, failed)
                    return completion
                failed[mode] = 0
            completion = await self._try({**body, **self.format.fields(last)})
            self.format.answered(last, failed)
            return completion

    def _in_format(self, completion: Completion) -> bool:
        """Return whether an answer names a label; a refusal says nothing about the format."""
        try:
            return self.format.usable(completion.content)
        except TeacherError as error:
            return error.reason == "rejected"

    async def _try(self, body: Mapping[str, Any]) -> Completion:
        url, provider = self.client.base_url, self.dialect.provider
        with telemetry.model_call(self.model, url.host, url.port, body, provider) as note:
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
            completion = self.dialect.read(answer, self.name)
            note(completion.outcome)
            return completion

    async def _post(self, content: bytes, headers: Mapping[str, str]) -> str:
        """Return the body of a 200 answer; reading stops at 1 MiB."""
        path = self.dialect.path + (f"?{self.query.decode()}" if self.query else "")
        async with self.client.stream("POST", path, content=content, headers=headers) as response:
            body = self.http.body_of(response)
            async for chunk in response.aiter_raw():
                body.add(chunk)
        if response.status_code != httpx.codes.OK:
            raise self.http.refusal(response.status_code, response.headers, body.text())
        return body.text()
