"""Teacher behind any OpenAI-compatible chat endpoint."""

import asyncio
import hashlib
import json
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr

from tracer_serve.components.registry import teachers
from tracer_serve.components.teachers._completion import Completion
from tracer_serve.components.teachers._endpoint import TeacherEndpoint
from tracer_serve.components.teachers._health import Health
from tracer_serve.components.teachers._labels import LabelSet
from tracer_serve.components.teachers._params import BreakerParams, CacheParams, Fallback, Price
from tracer_serve.components.teachers._prompt import Prompt, response_format
from tracer_serve.components.teachers._recorded import RecordedPrompt
from tracer_serve.errors import PluginError, TeacherError
from tracer_serve.infra.resilience.concurrency_limit import Limit
from tracer_serve.infra.resilience.retry import Retry
from tracer_serve.infra.resilience.single_flight import Coalesce
from tracer_serve.infra.resilience.ttl_cache import Cache
from tracer_serve.types import Answer, Text

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


@teachers.register("openai")
class OpenAI:
    """Ask a chat model for the label; cache, coalesce, limit, retry and fall back.

    A call goes through the cache of exact texts, an identical call in flight, the concurrency limit, and then up to
    `retries` further rounds over the endpoints, all within `deadline_s`. At a temperature other than 0 every call is an
    independent sample, so cache and coalescing are off.

    Parameters
    ----------
    model : the model's name at the endpoint
    base_url : root of the API
    api_key : sent as bearer token; never shown in errors, logs or a repr. ``pass_through``: drop-in calls go upstream
        with their callers' own keys, which are not stored; direct calls and files then have no key
    request : instead of prompt, a JSON file with the body of one call exactly as callers send it, with ``{text}`` in
        place of the text: its messages and all other fields, the temperature included
    prompt : template with ``{labels}``, ``{descriptions}``, ``{text}``; without ``{text}`` it is the system message and
        the text is the user message. Default: a plain classification prompt
    temperature : None leaves it out of the request, for models that reject it
    response : ``label``, or ``json_schema`` for structured output, which keeps every answer inside the label set
    timeout_s : seconds for one try, from connecting to the last byte
    deadline_s : seconds for the whole call: queue, tries and pauses
    retries : further rounds after a 429, a 5xx, a timeout or a broken connection
    max_concurrency : maximum number of calls in flight
    queue : maximum number of calls waiting for a slot; further calls fail at once as ``overloaded``
    price : price of tokens
    headers : further request headers, as secret as the key
    extra : further fields of the request, such as ``max_completion_tokens`` or ``seed``
    fallbacks : endpoints that serve the same model, in order of preference
    breaker, cache : when an endpoint counts as down; number and lifetime of cached answers
    labels, descriptions : the task's closed label set; empty for an open task
    known : labels in an open task's traces; the prompt offers them, and labels that recur later

    Examples
    --------
    >>> teacher = OpenAI("gpt-4.1-mini", labels=("no", "yes"))
    >>> teacher.health.breakers
    (('api.openai.com', 'closed'),)
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key: SecretStr | None = None,
        prompt: str | None = None,
        request: Path | None = None,
        temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0,
        response: Literal["label", "json_schema"] = "label",
        timeout_s: Seconds = 20.0,
        deadline_s: Seconds = 60.0,
        retries: Count = 3,
        max_concurrency: Annotated[int, Field(ge=1)] = 16,
        queue: Count = 256,
        price: Price | None = None,
        headers: dict[str, SecretStr] | None = None,
        extra: dict[str, Any] | None = None,
        fallbacks: tuple[Fallback, ...] = (),
        breaker: BreakerParams = BreakerParams(),  # noqa: B008  # frozen
        cache: CacheParams = CacheParams(),  # noqa: B008  # frozen
        labels: tuple[str, ...] = (),
        descriptions: dict[str, str] | None = None,
        known: tuple[str, ...] = (),
    ) -> None:
        names, described = sorted(labels), dict(descriptions or {})
        if prompt is not None and request is not None:
            raise PluginError("parameters 'prompt' and 'request': give one of them")
        recorded = None if request is None else RecordedPrompt(request)
        self.labels = LabelSet(names, recorded.label_path if recorded else ())
        self.prompt = recorded or Prompt(prompt, names, described, known)
        self.price, self.deadline_s = price, deadline_s
        self._body: dict[str, Any] = (recorded.options if recorded else {}) | (extra or {})
        if recorded is not None:
            temperature = self._body.get("temperature")
        elif temperature is not None:
            self._body["temperature"] = temperature
        if response == "json_schema":
            self._body["response_format"] = response_format(names)
        first = Fallback(base_url=base_url, model=model, api_key=api_key, headers=headers or {})
        blocks = (first, *fallbacks)
        self.endpoints = tuple(
            TeacherEndpoint.of(block, model, timeout_s, breaker, max_concurrency) for block in blocks
        )
        models = sorted({endpoint.model for endpoint in self.endpoints[1:]} - {model})
        self.fingerprint = _digest([model, models, self.prompt.template, names, described, self._body])
        self._repeatable = temperature == 0
        self._limit, self.retry = Limit(max_concurrency, queue), Retry(retries)
        self._flights: Coalesce[Text, Answer] = Coalesce()
        self._cache: Cache[Text, str] = Cache(cache.size, cache.ttl_s)
        self._asked = self._cached = self._coalesced = 0
        self._errors: Counter[str] = Counter()
        self._cost = 0.0

    async def label(self, text: Text) -> Answer:
        """Return the teacher's label of a text or a pair.

        `usage` and `cost` are those of this call: zero if the cache or another caller's call answered.

        Raises
        ------
        TeacherError
            If no answer is one of the labels, after `deadline_s` at the latest.
        """
        start = time.monotonic()
        self._asked += 1
        try:
            answer = await self._answer(text)
        except TeacherError as error:
            self._errors[error.reason] += 1
            raise
        return Answer(answer.label, answer.usage, answer.cost, (time.monotonic() - start) * 1e3)

    def request(self, text: Text) -> dict[str, Any]:
        """Return the body of the call that asks about a text: the teacher's own form."""
        messages = self.prompt.messages(text)
        return {**self._body, "model": self.endpoints[0].model, "messages": messages}

    def forget(self, text: Text) -> None:
        """Drop the cached answer of a text."""
        self._cache.drop(text)

    async def close(self) -> None:
        """Close the connections; calls in flight end in an error."""
        for endpoint in self.endpoints:
            await endpoint.client.aclose()

    @property
    def health(self) -> Health:
        """Return a snapshot for dashboards."""
        return Health(
            breakers=tuple((endpoint.name, endpoint.breaker.state) for endpoint in self.endpoints),
            in_flight=self._limit.in_flight,
            waiting=self._limit.waiting,
            asked=self._asked,
            cached=self._cached,
            coalesced=self._coalesced,
            errors=dict(self._errors),
            cost=self._cost,
        )

    async def _answer(self, text: Text) -> Answer:
        if not self._repeatable:
            return await self._within_deadline(text)
        known = self._cache.get(text)
        if known is not None:
            self._cached += 1
            return Answer(known)
        answer, pays = await self._flights.run(text, partial(self._within_deadline, text))
        self._cache.put(text, answer.label)
        self._coalesced += not pays
        return answer if pays else Answer(answer.label)

    async def _within_deadline(self, text: Text) -> Answer:
        until = time.monotonic() + self.deadline_s
        try:
            async with asyncio.timeout(self.deadline_s), self._limit.place():
                completion = await self._ask(text, until)
        except TimeoutError:
            raise TeacherError(f"no answer within the deadline of {self.deadline_s:g} s", reason="timeout") from None
        return self._read(completion)

    async def _ask(self, text: Text, until: float) -> Completion:
        body = self.request(text)  # each endpoint puts its own model's name
        return await self.retry.run([partial(endpoint.complete, body) for endpoint in self.endpoints], until)

    def _read(self, completion: Completion) -> Answer:
        usage = completion.tokens
        cost = self.price.of(usage) if self.price else 0.0
        self._cost += cost
        label = self.labels.parse(completion.content)
        self.prompt.note(label)
        return Answer(label, usage, cost)


def _digest(parts: list[Any]) -> str:
    """Hash everything that changes labels: models, prompt, label set, sampling; not keys, hosts, timeouts or limits.

    The host is not hashed: the same model behind a proxy or in another region is the same teacher.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
