"""One endpoint that speaks the OpenAI chat API: one try, and the typed error it ends in."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Self

import httpx
from pydantic import SecretStr

from tracer_serve.components.teachers._completion import Completion
from tracer_serve.components.teachers._params import BreakerParams, Fallback
from tracer_serve.errors import PluginError, TeacherError
from tracer_serve.infra import tracing as telemetry
from tracer_serve.infra.resilience.circuit_breaker import Breaker
from tracer_serve.infra.resilience.retry import retry_after

_SECRET_LENGTH = 8  # shorter "keys" ("none", "EMPTY") are no secrets, and hiding them would garble every message
_JSON = {"Content-Type": "application/json"}
_EXCERPT = 300  # characters of an endpoint's error that are passed on


class TeacherEndpoint:
    """One endpoint and its breaker.

    Parameters
    ----------
    base_url : root of the API, such as https://api.openai.com/v1
    model : what the endpoint calls the model
    api_key : sent as bearer token
    headers : further headers; their values are as secret as the key
    timeout_s : of one try, in seconds, from connecting to the last byte
    breaker : when the endpoint counts as down
    connections : most that are open at a time

    Raises
    ------
    PluginError
        Where the URL is none, or a key cannot be sent in a header; the message does not show the key.
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
        self.model, self.timeout_s = model, timeout_s
        url = _checked(base_url)
        self.name = url.netloc.decode("ascii")
        sent = {name: value.get_secret_value() for name, value in headers.items()}
        if api_key is not None:
            sent["Authorization"] = f"Bearer {api_key.get_secret_value()}"
        for name, value in sent.items():
            if not ((name + value).isascii() and (name + value).isprintable() and value == value.strip()):
                raise PluginError(
                    f"the key or header {name!r} for {self.name} holds white space at an end, a line break or a"
                    " character that HTTP cannot send; the environment variable may end in a newline"
                )
        keys = [value.removeprefix("Bearer ") for value in sent.values()]
        self._secrets = sorted((key for key in keys if len(key) >= _SECRET_LENGTH), key=len, reverse=True)
        self.breaker = Breaker(self.name, failures=breaker.failures, open_s=breaker.open_s)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30.0)
        # a read timeout starts anew with each byte; the whole try has one of its own, in `complete`
        self.client = httpx.AsyncClient(base_url=url, headers=sent, timeout=timeout_s, limits=limits)

    @classmethod
    def of(cls, door: Fallback, model: str, timeout_s: float, breaker: BreakerParams, connections: int) -> Self:
        """Make an endpoint from what the YAML says of it; `model` is asked where it names none."""
        return cls(
            door.base_url,
            door.model or model,
            api_key=door.api_key,
            headers=door.headers,
            timeout_s=timeout_s,
            breaker=breaker,
            connections=connections,
        )

    async def complete(self, body: Mapping[str, Any]) -> Completion:
        """Ask once.

        Raises
        ------
        TeacherError
            With ``retry_after_s`` where the endpoint asks to wait; secrets are blotted out of message and answer.
        """
        url = self.client.base_url
        with self.breaker.attempt(), telemetry.model_call(self.model, url.host, url.port, body) as note:
            if self.client.is_closed:
                raise TeacherError(f"{self.name}: the teacher was closed", reason="unavailable")
            # escaped to ASCII: half a surrogate pair in a text must not break the request
            content = json.dumps({**body, "model": self.model}).encode("ascii")
            headers = _JSON | telemetry.propagated()
            try:
                async with asyncio.timeout(self.timeout_s):
                    response = await self.client.post("chat/completions", content=content, headers=headers)
            except TimeoutError:
                raise TeacherError(f"{self.name} gave no answer in {self.timeout_s:g} s", reason="timeout") from None
            except httpx.HTTPError as error:
                problem = self.hide(str(error) or type(error).__name__)
                raise TeacherError(f"{self.name} cannot be reached: {problem}", reason="unavailable") from None
            if response.status_code != httpx.codes.OK:
                raise self._refusal(response)
            completion = Completion.read(self.hide(response.text), self.name)
            note(completion.outcome)
            return completion

    def hide(self, message: str) -> str:
        """Return a message without the secrets that are sent to this endpoint."""
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return message

    def _refusal(self, response: httpx.Response) -> TeacherError:
        """Say what a status other than 200 means."""
        status, (problem, code) = response.status_code, _problem(response)
        said = f"{self.name} answered {status}: {self.hide(problem)[:_EXCERPT]}"
        if status == httpx.codes.TOO_MANY_REQUESTS and code != "insufficient_quota":
            return TeacherError(said, reason="rate_limited", retry_after_s=retry_after(response.headers))
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in (408, 409, 425):
            return TeacherError(said, reason="unavailable", retry_after_s=retry_after(response.headers))
        hint = {401: "; check api_key", 403: "; check api_key", 404: "; check base_url and model"}.get(status, "")
        return TeacherError(said + hint, reason="rejected")


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise PluginError(f"parameter 'base_url': {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise PluginError(f"parameter 'base_url': {base_url!r} is no http(s) URL such as https://api.openai.com/v1")
    if url.userinfo or url.query:
        raise PluginError("parameter 'base_url': keys belong in api_key or headers, not in the URL, which is logged")
    return url


def _problem(response: httpx.Response) -> tuple[str, str]:
    """Return message and code of an OpenAI error object, or the body's beginning."""
    try:
        error = json.loads(response.content)["error"]
        return " ".join(str(error["message"]).split()), str(error.get("code"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return " ".join(response.text.split()) or response.reason_phrase, ""
