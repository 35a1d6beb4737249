"""``POST /v1/classify``: one text or many, in the shape that vLLM and SGLang use."""

import math
import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tracer_serve.config.fields import plain_answer, values_of
from tracer_serve.errors import BadInputError, TracerServeError
from tracer_serve.infra.cooperative import in_turns
from tracer_serve.infra.tracing import TRACEPARENT
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError, error_object, respond
from tracer_serve.server.http.json_response import JsonAnswer
from tracer_serve.server.http.request_body import header_of, read_model
from tracer_serve.server.routes.classify_request import ClassifyRequest
from tracer_serve.serving.router import Result
from tracer_serve.serving.runtime import Runtime
from tracer_serve.types import Decision, Text


async def classify(request: Request) -> Response:
    """Answer one request."""
    runtime = runtime_of(request)
    asked = await read_model(request, ClassifyRequest, runtime.max_body)
    name = require_name(asked.model, runtime)
    texts, single = inputs_of(asked.input, runtime)
    results = await _route(runtime, texts, metadata_of(asked.user, request))
    errors = [result for result in results if isinstance(result, TracerServeError)]
    if len(errors) == len(results):  # one that fails among many does not fail the rest, but all that fail are a failure
        return respond(errors[0])
    first = next(result for result in results if isinstance(result, Decision))
    body = {
        "id": f"classify-{first.trace_id}",
        "object": "list",
        "created": int(time.time()),
        "model": name,
        "data": [_item(i, result, asked, runtime) async for i, result in in_turns(enumerate(results))],
        "usage": usage_of(results),
    }
    return JsonAnswer(body, headers=headers_of(results, single))


def require_name(model: str | None, runtime: Runtime) -> str:
    """Check that a request names this task, or none; return the task's name."""
    name = runtime.task.spec.name
    if model not in (None, name):
        raise RefusalError(
            404, f"there is no model {model!r} here, only {name!r}", code="model_not_found", param="model"
        )
    return name


def inputs_of(given: str | list[str | list[str]], runtime: Runtime) -> tuple[list[Text], bool]:
    """Return the inputs of a request, and whether it was a single one."""
    spec = runtime.task.spec
    pair = spec.input == "pair"
    if isinstance(given, str) or (pair and len(given) == 2 and all(isinstance(part, str) for part in given)):  # noqa: PLR2004
        items: list[Any] = [given]
        single = True
    else:
        items, single = given, False
    if not items:
        raise RefusalError(400, "input is an empty list", param="input")
    if len(items) > spec.server.max_batch:
        message = f"input has {len(items):,} texts, more than the {spec.server.max_batch:,} of server.max_batch"
        raise RefusalError(400, message, code="batch_too_large", param="input")
    for i, item in enumerate(items):
        fits = isinstance(item, list) and len(item) == 2 if pair else isinstance(item, str)  # noqa: PLR2004
        if not fits:
            wanted = "two texts, [first, second]" if pair else "a text"
            where = "input" if single else f"input[{i}]"
            raise RefusalError(400, f"{where} has to be {wanted}: this task classifies {spec.input}s", param=where)
    return [(item[0], item[1]) if pair else item for item in items], single


async def _route(runtime: Runtime, texts: list[Text], metadata: dict[str, Any]) -> Sequence[Result | TracerServeError]:
    """Route the texts that say something, and put errors in the places of the others."""
    sound = [text for text in texts if says_something(text)]
    answered: Sequence[Result | TracerServeError] = await runtime.router.route(sound, metadata) if sound else []
    if len(sound) == len(texts):
        return answered
    following = iter(answered)
    return [next(following) if says_something(text) else BadInputError("the text is empty") for text in texts]


def says_something(text: Text) -> bool:
    """Whether there is anything to classify; of a pair, on both sides."""
    return text.strip() != "" if isinstance(text, str) else all(part.strip() for part in text)


def metadata_of(user: str | None, request: Request) -> dict[str, Any]:
    """Return what is kept with the trace of a request."""
    metadata: dict[str, Any] = {} if user is None else {"user": user}
    parent = header_of(request, b"traceparent")
    if parent and TRACEPARENT.fullmatch(parent):
        metadata["traceparent"] = parent
    return metadata


def _item(index: int, result: Result | TracerServeError, asked: ClassifyRequest, runtime: Runtime) -> dict[str, Any]:
    if isinstance(result, TracerServeError):
        return {"index": index, "error": error_object(result)}
    verdict, labels = result.verdict, runtime.classes(result.version)
    item: dict[str, Any] = {
        "index": index,
        "label": result.label,
        **_fields(result, runtime),
        "num_classes": len(labels),
        "decision": result.kind,
        "reason": result.reason,
        "score": finite(None if verdict is None else verdict.score),
        "version": result.version,
        "trace_id": result.trace_id,
    }
    if verdict is None or result.kind == "deferred" or len(labels) != len(verdict.proba):
        return item
    if asked.probs:
        item["probs"] = {label: _rounded(p) for label, p in zip(labels, verdict.proba, strict=True)}
    if asked.top_k:
        best = (-verdict.proba).argsort(kind="stable")[: asked.top_k]
        item["top"] = [{"label": labels[i], "prob": _rounded(verdict.proba[i])} for i in best]
    return item


def _fields(result: Decision, runtime: Runtime) -> dict[str, Any]:
    """Return the answer as an object if the task has fields: those in `label`, and those outside the certificate."""
    fields = runtime.task.spec.answer_fields
    if fields is None:
        return {}
    score = None if result.verdict is None else result.verdict.score
    others = {} if result.answer is None else result.answer.others
    return {"fields": plain_answer(fields, values_of(result.label), others, score)}


def _rounded(probability: Any) -> float:
    return round(float(probability), 6)


def finite(score: float | None) -> float | None:
    """Return a score as JSON can say it, six digits of it; None if there is none."""
    return None if score is None or not math.isfinite(score) else round(score, 6)


def usage_of(results: Sequence[Result | TracerServeError]) -> dict[str, int]:
    """Sum the teacher's tokens; a handled text costs none."""
    answers = [r.answer for r in results if isinstance(r, Decision) and r.answer is not None]
    prompt = sum(answer.usage.get("prompt_tokens", 0) for answer in answers)
    completion = sum(answer.usage.get("completion_tokens", 0) for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def headers_of(results: Sequence[Result | TracerServeError], single: bool) -> dict[str, str]:
    """Return the headers that say who answered."""
    decisions = [result for result in results if isinstance(result, Decision)]
    kinds = {decision.kind for decision in decisions}
    headers: dict[str, str] = {"x-tracer-decision": kinds.pop() if len(kinds) == 1 else "mixed"}
    first = decisions[0]
    if first.version is not None:
        headers["x-tracer-version"] = str(first.version)
    if single:
        headers["x-tracer-trace-id"] = first.trace_id
        score = finite(None if first.verdict is None else first.verdict.score)
        if score is not None:
            headers["x-tracer-score"] = str(score)
    return headers
