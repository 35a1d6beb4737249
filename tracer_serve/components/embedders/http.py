"""Vectors from an endpoint that speaks the OpenAI embeddings API."""

import hashlib
import json
import random
import time
from collections.abc import Sequence
from typing import Annotated, Any, Self

import httpx
import numpy as np
from pydantic import Field

from tracer_serve.components.pretrained import readable
from tracer_serve.components.registry import embedders
from tracer_serve.errors import BadInputError, EmbedderError
from tracer_serve.types import Text, Vectors

_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 8.0


@embedders.register("http")
class HttpEmbedder:
    """Asks ``POST {base_url}/embeddings``; timeouts, 429 and 5xx are tried again with growing, jittered waits.

    The endpoint decides what its model name stands for: where it changes the weights under the same name, the
    certificate is void without a trace of it here. Name a pinned model.

    Parameters
    ----------
    base_url : such as ``https://api.openai.com/v1``
    model : model name sent to the endpoint
    api_key : sent as a bearer token; None: no header
    dimensions : asks the endpoint for shorter vectors, where it can
    timeout_s : of one try, seconds
    retries : further tries after the first
    batch_size : texts in one request
    """

    trainable = False
    remote = True  # the work is done elsewhere, so it is not sent to a cluster's workers

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str | None = None,
        dimensions: Annotated[int, Field(ge=1)] | None = None,
        timeout_s: Annotated[float, Field(gt=0)] = 20.0,
        retries: Annotated[int, Field(ge=0, le=10)] = 3,
        batch_size: Annotated[int, Field(ge=1, le=2048)] = 64,
    ) -> None:
        self.base_url, self.model, self.dimensions = base_url.rstrip("/"), model, dimensions
        self.retries, self.batch_size = retries, batch_size
        self._dim = dimensions or 0
        self._client = httpx.Client(
            headers={} if api_key is None else {"authorization": f"Bearer {api_key}"}, timeout=timeout_s
        )

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
            Where the endpoint cannot be reached, refuses, or answers with something else than n vectors.
        """
        if not all(isinstance(text, str) for text in texts):
            raise BadInputError("http embeds single texts; for pairs wrap it in PairEmbedder")
        parts = [self._batch(texts[i : i + self.batch_size]) for i in range(0, len(texts), self.batch_size)]
        if len({part.shape[1] for part in parts}) > 1:
            raise EmbedderError(f"{self.base_url} gave vectors of different lengths for {self.model!r}")
        return np.concatenate(parts) if parts else np.empty((0, self._dim), np.float32)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _batch(self, texts: Sequence[Text]) -> Vectors:
        told = [readable(str(text)) for text in texts]
        body: dict[str, Any] = {"model": self.model, "input": told, "encoding_format": "float"}
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        vectors = self._read(self._post(body), len(texts))
        self._dim = vectors.shape[1]
        return vectors

    def _post(self, body: dict[str, Any]) -> httpx.Response:
        """Ask, again and again where that may help."""
        url = f"{self.base_url}/embeddings"
        for left in range(self.retries, -1, -1):
            wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (self.retries - left)) * random.uniform(0.5, 1.0)
            try:
                response = self._client.post(url, json=body)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                problem, again = f"{type(error).__name__}: {error}", isinstance(error, httpx.TransportError)
                asked_wait = None
            else:
                if response.is_success:
                    return response
                again, asked_wait = response.status_code in _AGAIN, _retry_after(response)
                problem = f"status {response.status_code}: {response.text[:200]!r}"
            if not (again and left) or (asked_wait or 0.0) > _LONGEST_WAIT_S:
                raise EmbedderError(
                    f"{url} gave no vectors ({problem}); check embedder.base_url, model and api_key",
                    retry_after_s=asked_wait,
                )
            time.sleep(max(wait, asked_wait or 0.0))
        raise AssertionError("the last try returns or raises")

    def _read(self, response: httpx.Response, n: int) -> Vectors:
        """Return the n vectors of an answer, in the order asked."""
        try:
            rows = sorted(response.json()["data"], key=lambda row: int(row["index"]))
            vectors = np.array([row["embedding"] for row in rows], np.float32)
        except (ValueError, KeyError, TypeError) as error:
            raise EmbedderError(f"{self.base_url} gave no OpenAI embeddings object: {error!r}") from error
        if vectors.ndim != 2 or len(vectors) != n or [int(row["index"]) for row in rows] != list(range(n)):  # noqa: PLR2004
            raise EmbedderError(f"{self.base_url} answered {n} texts with an array of shape {vectors.shape}")
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.all(np.isfinite(length) & (length > 0)):
            raise EmbedderError(f"{self.base_url} gave a vector that is zero or not finite")
        unit: Vectors = vectors / length
        return unit


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds the endpoint asks to wait; a date or nonsense counts as nothing."""
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
