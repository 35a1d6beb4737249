"""A drop-in call as a question: upstream is asked with the caller's own body, and its answer holds the label."""

import json
import time
from dataclasses import dataclass
from typing import Any

import httpx

from tracer_serve.components.teachers._labels import AnyLabels
from tracer_serve.components.teachers._params import Price
from tracer_serve.components.teachers._spend_limit import SpendLimit, paid_call
from tracer_serve.errors import TeacherError
from tracer_serve.server.chat.answer_shape import Shape
from tracer_serve.server.chat.face import Face
from tracer_serve.server.chat.forward import Forwarder, Headers
from tracer_serve.server.chat.relay import LARGEST_LEARNED
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.types import Answer, Text


@dataclass(frozen=True, slots=True)
class UpstreamQuestion:
    """The call of a known form, as it came.

    Parameters
    ----------
    form, certified_as : as in `serving.question.Question`
    fingerprint : of the teacher: the task's own, or for another form the form's, which is that of a teacher
    face : through which it came
    body, headers : of the call
    shape : where its label is
    labels : what labels there are
    price : what the tokens cost
    spend : limits what calls cost; None without a budget
    """

    form: str
    certified_as: str
    fingerprint: str
    forwarder: Forwarder
    face: Face
    body: bytes
    headers: Headers
    shape: Shape
    labels: AnyLabels
    price: Price | None = None
    spend: SpendLimit | None = None

    async def ask(self, text: Text, *, fresh: bool = False) -> Answer:  # noqa: ARG002  # the body holds the text
        """Send the call upstream, for an audit: not as a stream, and under no idempotency key."""
        started = time.monotonic()
        async with paid_call(self.spend) as call:
            answer = self.read(await self._asked_again(), stream=False, started=started)
            call.cost = answer.cost if answer.usage else None
        return answer

    async def _asked_again(self) -> bytes:
        try:
            path, body = self.face.path, _whole(self.body)
            async with self.forwarder.ask(path, body, self.headers, own=True) as (_, answer):
                if answer.status_code != httpx.codes.OK:
                    raise TeacherError(f"upstream answered {answer.status_code}", reason="unavailable")
                read = bytearray()
                async for part in answer.aiter_bytes():
                    read += part
                    if len(read) > LARGEST_LEARNED:
                        raise TeacherError("the answer is too long for a label", reason="unknown_label")
        except (httpx.HTTPError, RefusalError) as error:
            raise TeacherError(f"upstream gave no answer: {error!r}", reason="unavailable") from None
        return bytes(read)

    def read(self, body: bytes, *, stream: bool, started: float) -> Answer:
        """Read label, tokens and cost out of an answer.

        Parameters
        ----------
        started : when upstream was asked, of the monotonic clock

        Raises
        ------
        TeacherError
            If there is no label in it.
        """
        answer = self.face.read(body, stream=stream)
        cost = self.price.of(answer.usage) if self.price else 0.0
        label = self.shape.read(answer.message, self.labels)
        return Answer(label, answer.usage, cost, (time.monotonic() - started) * 1e3)


def _whole(body: bytes) -> bytes:
    """Return the body of a call whose answer comes in one piece."""
    asked: dict[str, Any] = json.loads(body)
    if not asked.get("stream"):
        return body
    return json.dumps({k: v for k, v in asked.items() if k not in ("stream", "stream_options")}).encode("ascii")
