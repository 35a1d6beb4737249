"""What every teacher behind an LLM API does: cache, coalesce, limit, retry, fall back, and count."""

import asyncio
import hashlib
import json
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field

from tracer_serve.components.teachers._completion import Completion
from tracer_serve.components.teachers._endpoint import TeacherEndpoint
from tracer_serve.components.teachers._health import Health
from tracer_serve.components.teachers._labels import AnyLabels, FieldLabels
from tracer_serve.components.teachers._params import Budget, CacheParams, Price
from tracer_serve.components.teachers._prompt import Prompt
from tracer_serve.components.teachers._recorded import RecordedPrompt
from tracer_serve.components.teachers._spend_limit import SpendLimit, paid_call
from tracer_serve.errors import PluginError, TeacherError
from tracer_serve.infra.resilience.concurrency_limit import Limit
from tracer_serve.infra.resilience.retry import Retry
from tracer_serve.infra.resilience.single_flight import Coalesce
from tracer_serve.infra.resilience.ttl_cache import Cache
from tracer_serve.types import Answer, Text

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Bounds of a call, as the parameters of the same names in the YAML."""

    deadline_s: float
    retries: int
    max_concurrency: int
    queue: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What a call costs, and what all may cost a day, as the parameters of the same names in the YAML."""

    price: Price | None
    budget: Budget | None

    def limit(self) -> SpendLimit | None:
        """Return the limit of what the calls cost; None without a budget.

        Raises
        ------
        PluginError
            If there is a budget and no price.
        """
        if self.budget is None:
            return None
        if self.price is None:
            raise PluginError("parameter 'budget': needs `price`, since answers state tokens and not money")
        return SpendLimit(self.budget, self.price.currency)


class LlmTeacher:
    """Ask an LLM for the label.

    A call goes through the cache of exact texts, an identical call in flight, the concurrency limit, and then up to
    `retries` further rounds over the endpoints, all within `deadline_s`. At a temperature other than 0 every call is an
    independent sample, so cache and coalescing are off.

    Parameters
    ----------
    prompt, labels : of the question and its answer
    endpoints : in order of preference
    repeatable : whether two calls about one text have the same answer

    Attributes
    ----------
    api : of `request`, as in `forms.form.Form`
    spend : limits what the calls cost; None without a budget
    """

    api: ClassVar[str]
    fingerprint: str

    def __init__(
        self,
        prompt: Prompt | RecordedPrompt,
        labels: AnyLabels,
        endpoints: Sequence[TeacherEndpoint],
        limits: CallLimits,
        *,
        costs: Costs,
        cache: CacheParams,
        repeatable: bool,
    ) -> None:
        self.spend = costs.limit()
        self.prompt, self.labels, self.endpoints = prompt, labels, tuple(endpoints)
        self.price, self.deadline_s, self._repeatable = costs.price, limits.deadline_s, repeatable
        self._limit, self.retry = Limit(limits.max_concurrency, limits.queue), Retry(limits.retries)
        self._flights: Coalesce[Text, Answer] = Coalesce()
        self._cache: Cache[Text, Answer] = Cache(cache.size, cache.ttl_s)
        self._asked = self._cached = self._coalesced = 0
        self._errors: Counter[str] = Counter()
        self._cost = 0.0

    @abstractmethod
    def body(self, text: Text) -> dict[str, Any]:
        """Return the body of the call that asks about a text, without the fields of its answer's format."""

    def request(self, text: Text) -> dict[str, Any]:
        """Return the body of the call that asks about a text: the teacher's own form."""
        first = self.endpoints[0]
        return {**self.body(text), **first.format.fields(first.format.modes[0]), "model": first.model}

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
        return replace(answer, latency_ms=(time.monotonic() - start) * 1e3)

    def forget(self, text: Text) -> None:
        """Drop the cached answer of a text."""
        self._cache.drop(text)

    async def close(self) -> None:
        """Close the connections; calls in flight end in an error."""
        if self.spend is not None:
            await self.spend.settle()
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
            return known
        answer, pays = await self._flights.run(text, partial(self._within_deadline, text))
        free = Answer(answer.label, others=answer.others)
        self._cache.put(text, free)
        self._coalesced += not pays
        return answer if pays else free

    async def _within_deadline(self, text: Text) -> Answer:
        until = time.monotonic() + self.deadline_s
        try:
            async with asyncio.timeout(self.deadline_s), self._limit.place(), paid_call(self.spend) as call:
                completion = await self._ask(text, until)
                call.cost = self._cost_of(completion)
        except TimeoutError:
            raise TeacherError(f"no answer within the deadline of {self.deadline_s:g} s", reason="timeout") from None
        return self.read(completion)

    async def _ask(self, text: Text, until: float) -> Completion:
        body = self.body(text)  # each endpoint puts its own model's name and format
        return await self.retry.run([partial(endpoint.complete, body) for endpoint in self.endpoints], until)

    def _cost_of(self, completion: Completion) -> float | None:
        """Return what a completion cost; None if that is not known."""
        return self.price.of(completion.tokens) if self.price and completion.tokens else None

    def read(self, completion: Completion, price_share: float = 1.0) -> Answer:
        """Return the answer in a completion.

        Parameters
        ----------
        price_share : what its tokens cost, relative to the price

        Raises
        ------
        TeacherError
            If it is none of the labels.
        """
        usage, cost = completion.tokens, (self._cost_of(completion) or 0.0) * price_share
        self._cost += cost
        label = self.labels.parse(completion.content)
        self.prompt.note(label)
        others = self.labels.others(completion.content) if isinstance(self.labels, FieldLabels) else {}
        return Answer(label, usage, cost, others=others)


def digest(parts: list[Any]) -> str:
    """Hash everything that changes labels: models, prompt, label set, sampling; not keys, hosts, timeouts or limits.

    The host is not hashed: the same model behind a proxy or in another region is the same teacher.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
