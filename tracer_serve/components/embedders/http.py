"""Embed texts by a remote endpoint with the OpenAI embeddings API."""

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Annotated, Any, Self

import httpx
import numpy as np
from pydantic import Field, SecretStr

from tracer_serve.components.pretrained import readable
from tracer_serve.components.registry import embedders
from tracer_serve.errors import BadInputError, EmbedderError
from tracer_serve.infra.http_endpoint import MIB, HttpEndpoint
from tracer_serve.infra.resilience.retry import Retry
from tracer_serve.types import Text, Vectors

_VECTOR_BYTES = 128 * 1024  # of JSON for one vector: 4,096 numbers of 30 characters


@embedders.register("http")
class HttpEmbedder:
    """Embed texts by ``POST {base_url}/embeddings``; timeouts, 429 and 5xx are retried with jittered pauses.

    The endpoint decides which weights a model name means. If it changes them under the same name, the certificate is
    void and nothing here can detect it, so name a pinned model.

    Parameters
    ----------
    base_url : such as ``https://api.openai.com/v1``
    model : model name sent to the endpoint
    api_key : sent as a bearer token; None sends no header
    dimensions : asks the endpoint for shorter vectors, if it supports that
    timeout_s : timeout of one try, in seconds, from connecting to the last byte
    retries : further tries after the first
    batch_size : texts in one request
    """

    trainable = False
    remote = True  # the endpoint does the work, so a cluster's workers would not be faster

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: SecretStr | None = None,
        dimensions: Annotated[int, Field(ge=1)] | None = None,
        timeout_s: Annotated[float, Field(gt=0)] = 20.0,
        retries: Annotated[int, Field(ge=0, le=10)] = 3,
        batch_size: Annotated[int, Field(ge=1, le=2048)] = 64,
    ) -> None:
        self.base_url, self.model, self.dimensions = base_url.rstrip("/"), model, dimensions
        self.timeout_s, self.batch_size = timeout_s, batch_size
        self.retry = Retry(retries)
        self._dim = dimensions or 0
        self._http = HttpEndpoint(self.base_url, api_key=api_key, headers={}, error=EmbedderError)
        self._client = httpx.Client(base_url=self._http.url, headers=self._http.headers, timeout=timeout_s)

    @property
    def fingerprint(self) -> str:
        """Hash of endpoint, model name and dimensions."""
        parts = json.dumps([self.base_url, self.model, self.dimensions])
        return "http-" + hashlib.sha256(parts.encode()).hexdigest()[:24]

    def fit(self, texts: Sequence[Text]) -> Self:  # noqa: ARG002  # frozen
        """Return itself: the model is the endpoint's."""
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Return unit-norm float32 vectors, shape (n, d).

        Raises
        ------
        EmbedderError
            If the endpoint cannot be reached, refuses, or does not return n vectors.
        """
        if not all(isinstance(text, str) for text in texts):
            raise BadInputError("http embeds single texts; for pairs wrap it in PairEmbedder")
        parts = [self._batch(texts[i : i + self.batch_size]) for i in range(0, len(texts), self.batch_size)]
        if len({part.shape[1] for part in parts}) > 1:
            raise self._unusable(f"returned vectors of different lengths for {self.model!r}")
        return np.concatenate(parts) if parts else np.empty((0, self._dim), np.float32)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _batch(self, texts: Sequence[Text]) -> Vectors:
        body: dict[str, Any] = {"model": self.model, "input": [readable(str(text)) for text in texts]}
        body["encoding_format"] = "float"
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        until = self.retry.clock() + self.timeout_s * (self.retry.retries + 1)
        try:
            answer = self.retry.run_blocking(lambda: self._post(body, max(MIB, len(texts) * _VECTOR_BYTES)), until)
        except EmbedderError as error:
            raise EmbedderError(
                f"{self.base_url} returned no vectors: {error}; check embedder.base_url, model and api_key",
                reason=error.reason,
                retry_after_s=error.retry_after_s,
            ) from None
        vectors = self._read(answer, len(texts))
        self._dim = vectors.shape[1]
        return vectors

    def _post(self, body: dict[str, Any], limit: int) -> str:
        """Return the body of a 200 answer; a try ends after `timeout_s` even if bytes still arrive."""
        start = time.monotonic()
        try:
            with self._client.stream("POST", "embeddings", json=body) as response:
                content = self._http.body_of(response, limit)
                for chunk in response.iter_raw():
                    content.add(chunk)
                    if time.monotonic() - start > self.timeout_s:
                        raise EmbedderError(f"no complete answer in {self.timeout_s:g} s", reason="timeout")
        except httpx.HTTPError as error:
            raise self._http.unreachable(error) from None
        if response.status_code != httpx.codes.OK:
            raise self._http.refusal(response.status_code, response.headers, content.text())
        return content.text()

    def _read(self, answer: str, n: int) -> Vectors:
        """Return the n vectors of an answer, in the order of the request."""
        try:
            rows = sorted(json.loads(answer)["data"], key=lambda row: int(row["index"]))
            vectors = np.array([row["embedding"] for row in rows], np.float32)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._unusable(f"returned no OpenAI embeddings object: {type(error).__name__}") from error
        if vectors.ndim != 2 or len(vectors) != n or [int(row["index"]) for row in rows] != list(range(n)):  # noqa: PLR2004
            raise self._unusable(f"answered {n} texts with an array of shape {vectors.shape}")
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.all(np.isfinite(length) & (length > 0)):
            raise self._unusable("returned a vector that is zero or not finite")
        unit: Vectors = vectors / length
        return unit

    def _unusable(self, how: str) -> EmbedderError:
        return EmbedderError(f"{self.base_url} {how}", reason="unavailable")
