"""Typed HTTP clients of a running server, sync and async."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from tracer_serve.api.results import Classified
from tracer_serve.errors import BadInputError, EndpointError
from tracer_serve.infra.resilience.retry import retry_after
from tracer_serve.types import Text

_TIMEOUT_S = 60.0


class Client:
    """Client of ``POST /v1/classify``.

    Parameters
    ----------
    url : root of the server, such as ``http://127.0.0.1:3000``
    api_key : sent as bearer token
    model : name of the task, if the server has several
    timeout_s : seconds per request
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, model: str | None = None, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self.model = model
        self._http = httpx.Client(base_url=url, headers=_headers(api_key), timeout=timeout_s)

    def classify(self, texts: Sequence[Text], *, user: str | None = None) -> list[Classified]:
        """Classify n texts or pairs; the server asks its teacher about deferred ones.

        Raises
        ------
        BadInputError
            If the server rejects the request.
        EndpointError
            If the server cannot be reached, or has no answer for a text.
        """
        if not texts:
            return []
        try:
            response = self._http.post("/v1/classify", json=_body(texts, self.model, user))
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        return _read(response)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class AsyncClient:
    """The same as `Client` with coroutines."""

    def __init__(
        self, url: str, *, api_key: str | None = None, model: str | None = None, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self.model = model
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(api_key), timeout=timeout_s)

    async def classify(self, texts: Sequence[Text], *, user: str | None = None) -> list[Classified]:
        """Classify n texts or pairs, as `Client.classify`."""
        if not texts:
            return []
        try:
            response = await self._http.post("/v1/classify", json=_body(texts, self.model, user))
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        return _read(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()


def _headers(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


def _body(texts: Sequence[Text], model: str | None, user: str | None) -> dict[str, Any]:
    given = {"input": [text if isinstance(text, str) else list(text) for text in texts], "model": model, "user": user}
    return {name: value for name, value in given.items() if value is not None}


def _unreachable(error: httpx.HTTPError) -> EndpointError:
    reason = "timeout" if isinstance(error, httpx.TimeoutException) else "unavailable"
    return EndpointError(f"the server cannot be reached: {error or type(error).__name__}", reason=reason)


def _read(response: httpx.Response) -> list[Classified]:
    """Return the results in the order of the request."""
    try:
        answer = response.json()
        if response.is_success:
            return [_item(item) for item in sorted(answer["data"], key=lambda item: int(item["index"]))]
        problem = str(answer["error"]["message"])
    except (ValueError, KeyError, TypeError) as error:
        problem = f"status {response.status_code} without a usable body ({type(error).__name__}); is this tracer-serve?"
    if response.status_code in (400, 401, 403, 404, 413, 422):
        raise BadInputError(problem)
    raise EndpointError(problem, reason="unavailable", retry_after_s=retry_after(response.headers))


def _item(item: dict[str, Any]) -> Classified:
    if "error" in item:
        raise EndpointError(f"text {item['index']}: {item['error']['message']}", reason="unavailable")
    return Classified(item["label"], item["decision"], item["reason"], item["score"], item["version"])
