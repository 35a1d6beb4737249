"""Teacher that collects texts and asks about them through a batch API."""

import asyncio
import hashlib
import itertools
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeVar

from tracer_serve.components.teachers._batch.anthropic_api import AnthropicBatches
from tracer_serve.components.teachers._batch.api import BatchApi, Outcome, not_answered
from tracer_serve.components.teachers._batch.journal import BatchJournal, SubmittedBatch
from tracer_serve.components.teachers._batch.openai_api import OpenAIBatches
from tracer_serve.components.teachers._dialect import AZURE
from tracer_serve.components.teachers._llm_teacher import LlmTeacher
from tracer_serve.errors import PluginError, TeacherError
from tracer_serve.infra.http_endpoint import MIB
from tracer_serve.infra.resilience.retry import TRANSIENT
from tracer_serve.protocols import Teacher
from tracer_serve.types import Answer, Text

T = TypeVar("T")
_log = logging.getLogger(__name__)

PRICE_SHARE = 0.5
"""Price of a batched call relative to that of a direct one, at both providers."""

REQUESTS = 10_000
"""Most requests in a batch; both providers take more, but fewer are sooner done."""

_BYTES = 100 * MIB  # of a batch; both providers take 200
_ROUNDS = 3  # batches that a text is in, if they expire or fail
_CALLS = 8  # tries of one call of the API
_SHORTEST_S, _LONGEST_S, _GROWTH, _GROWN = 0.2, 60.0, 1.5, 20  # pauses between two looks at a batch


class BatchTeacher:
    """Ask an LLM through its provider's batch API, at half the price.

    Texts that are asked about within `linger_s` of each other are sent as one batch. Equal texts are asked about once.
    What expires or fails for a reason that may pass is sent again, in `_ROUNDS` batches at most. Batches of an earlier
    process that are in the journal are waited for, not repeated.

    Parameters
    ----------
    teacher : its prompt, first endpoint and price are used
    journal : of the job that this teacher works for
    linger_s : seconds without a further text after which a batch is sent

    Attributes
    ----------
    outage : whether the API was down, so that batches may be left unread

    Raises
    ------
    PluginError
        If the teacher has no batch API.
    """

    def __init__(self, teacher: Teacher, journal: BatchJournal, *, linger_s: float = 1.0) -> None:
        if not isinstance(teacher, LlmTeacher) or teacher.endpoints[0].dialect is AZURE:
            raise PluginError("this teacher has no batch API; OpenAI's and Anthropic's have")
        endpoint = teacher.endpoints[0]
        if endpoint.pass_through:
            raise PluginError("a batch has no caller whose key could be passed through; set api_key: ${NAME}")
        self.fingerprint, self._journal, self.outage = teacher.fingerprint, journal, False
        self._api: BatchApi = (AnthropicBatches if endpoint.protocol == "anthropic" else OpenAIBatches)(endpoint)
        self._teacher, self._endpoint, self._linger_s = teacher, endpoint, linger_s
        self._answers: dict[str, asyncio.Future[Answer]] = {}
        self._fresh: dict[str, Text] = {}
        self._tries: Counter[str] = Counter()
        self._collector: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._results: dict[str, asyncio.Task[dict[str, Outcome]]] = {}

    async def label(self, text: Text) -> Answer:
        """Return the teacher's label of a text, within a day or so; only the first of equal texts has a cost.

        Raises
        ------
        TeacherError
            If the answer is none of the labels, or the API is down.
        """
        item = _id_of(text)
        if item in self._answers:
            answer = await asyncio.shield(self._answers[item])
            return Answer(answer.label, others=answer.others)
        future = self._answers[item] = asyncio.get_running_loop().create_future()
        self._fresh[item] = text
        if self._collector is None or self._collector.done():
            self._collector = asyncio.create_task(self._collect())
        return await asyncio.shield(future)

    def finish(self) -> None:
        """End the job: forget its batches, since their answers are stored; not where an outage left some unread."""
        if not self.outage:
            self._journal.finish()

    async def close(self) -> None:
        """Stop waiting; submitted batches go on, and the next process finds them in the journal."""
        tasks = [*self._running, *self._results.values(), *([self._collector] if self._collector else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for future in self._answers.values():
            future.cancel()
        await self._teacher.close()

    async def _collect(self) -> None:
        """Send what has come once nothing more comes."""
        while self._fresh:
            before = len(self._fresh)
            await asyncio.sleep(self._linger_s)
            if len(self._fresh) > before and len(self._fresh) < REQUESTS:
                continue
            texts, self._fresh = self._fresh, {}
            for part in self._parts(texts):
                task = asyncio.create_task(self._answer(part))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    def _parts(self, texts: Mapping[str, Text]) -> Iterator[dict[str, Text]]:
        """Split texts into batches of `REQUESTS` requests and `_BYTES` bytes at most."""
        part: dict[str, Text] = {}
        size = 0
        for item, text in texts.items():
            length = len(json.dumps(self._teacher.request(text)))
            if part and (len(part) == REQUESTS or size + length > _BYTES):
                yield part
                part, size = {}, 0
            part[item] = text
            size += length
        yield part

    async def _answer(self, texts: dict[str, Text]) -> None:
        """Ask about texts until each has an answer or an error."""
        pending = dict(texts)
        try:
            for entry in await asyncio.to_thread(self._journal.entries):
                if not pending.keys().isdisjoint(entry.ids):
                    await self._take(entry, pending)
            while pending:
                await self._take(await self._submit(pending), pending)
        except TeacherError as error:
            self.outage = True
            self._fail(pending, error)
        except Exception as error:  # noqa: BLE001  # the callers that wait get the error
            _log.exception("a batch failed unexpectedly")
            self._fail(pending, TeacherError(f"the batch failed: {error!r}", reason="unavailable"))

    async def _submit(self, texts: Mapping[str, Text]) -> SubmittedBatch:
        """Submit a batch; a call whose fate is unknown is looked up before it is repeated."""
        if self._teacher.spend is not None:
            await asyncio.to_thread(self._teacher.spend.require)
        requests = {item: self._teacher.request(text) for item, text in texts.items()}
        entry = await asyncio.to_thread(self._journal.begin, requests)
        tried = itertools.count()

        async def submit() -> str:
            found = await self._find(entry) if next(tried) else None
            return found or await self._api.submit(requests, entry.mark)

        try:
            batch = await _patiently(submit)
        except TeacherError as error:
            if error.reason not in TRANSIENT:
                await asyncio.to_thread(self._journal.drop, entry)
            raise
        _log.info("%s: submitted batch %s, %d texts", self._endpoint.name, batch, len(texts))
        return await asyncio.to_thread(self._journal.received, entry, batch)

    def _find(self, entry: SubmittedBatch) -> Awaitable[str | None]:
        return self._api.find(entry.mark, len(entry.ids), entry.since)

    async def _take(self, entry: SubmittedBatch, pending: dict[str, Text]) -> None:
        """Wait for a batch and take what it answers out of `pending`."""
        if entry.mark not in self._results:
            self._results[entry.mark] = asyncio.create_task(self._wait(entry))
        outcomes = await asyncio.shield(self._results[entry.mark])
        self._results.pop(entry.mark, None)
        for item in pending.keys() & set(entry.ids):
            outcome = outcomes.get(item) or not_answered(self._endpoint, "it is not in the results")
            if isinstance(outcome, TeacherError) and outcome.reason in TRANSIENT:
                self._tries[item] += 1
                if self._tries[item] < _ROUNDS:
                    continue
            del pending[item]
            self._settle(item, outcome)

    async def _wait(self, entry: SubmittedBatch) -> dict[str, Outcome]:
        """Return the results of a batch once it has ended; none if it was never received or does not exist any more."""
        try:
            batch = entry.batch or await _patiently(lambda: self._find(entry))
            if batch is None:
                await asyncio.to_thread(self._journal.drop, entry)
                return {}
            for pause in _pauses():
                if await _patiently(lambda: self._api.ended(batch)):
                    break
                await asyncio.sleep(pause)
            return await _patiently(lambda: self._api.results(batch))
        except TeacherError as error:
            if error.reason in TRANSIENT:
                raise
            await asyncio.to_thread(self._journal.drop, entry)
            if error.status == 404:  # noqa: PLR2004  # deleted, or of another account
                return {}
            raise

    def _settle(self, item: str, outcome: Outcome) -> None:
        future = self._answers[item]
        if future.done():
            return
        try:
            if isinstance(outcome, TeacherError):
                raise outcome
            answer = self._teacher.read(outcome, PRICE_SHARE)
            if self._teacher.spend is not None:
                self._teacher.spend.add(answer.cost)
            future.set_result(answer)
        except TeacherError as error:
            future.set_exception(error)
            future.exception()  # read the error if no caller waits, or asyncio logs it

    def _fail(self, texts: Mapping[str, Text], error: TeacherError) -> None:
        """Give texts an error; they may be asked about again."""
        for item in texts:
            self._settle(item, error)
            del self._answers[item]


def _id_of(text: Text) -> str:
    return hashlib.sha256(json.dumps(text).encode("ascii")).hexdigest()[:32]


def _pauses() -> Iterator[float]:
    return (min(_LONGEST_S, _SHORTEST_S * _GROWTH ** min(n, _GROWN)) for n in itertools.count())


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call of the API; repeat it after a failure that may pass."""
    for pause in itertools.islice(_pauses(), _CALLS - 1):
        try:
            return await call()
        except TeacherError as error:
            if error.reason not in TRANSIENT:
                raise
            await asyncio.sleep(max(pause, error.retry_after_s or 0.0))
    return await call()
