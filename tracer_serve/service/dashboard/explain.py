"""``POST /v1/explain``: what would become of a text, and why. The teacher is not asked, and nothing is stored."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tracer_serve.errors import BadInputError
from tracer_serve.gate.classes import class_thresholds
from tracer_serve.live import Loaded
from tracer_serve.policy import Policy
from tracer_serve.protocols import Embedder, Ensemble
from tracer_serve.records import Inputs, Text, Vectors, Verdict
from tracer_serve.redaction import WITHHELD
from tracer_serve.report.plain import joined
from tracer_serve.report.words import BRIEF
from tracer_serve.service.body import read_model
from tracer_serve.service.classify import inputs_of
from tracer_serve.service.failures import RefusalError
from tracer_serve.service.runtime import Runtime, runtime_of
from tracer_serve.versions import NEAREST

_KIN = 5
_LABELS = 5


class ExplainRequest(BaseModel):
    """What is asked."""

    model_config = ConfigDict(extra="forbid", strict=True, title="ExplainRequest")

    input: str | list[str] = Field(description="One text; where the task classifies pairs, [first, second].")


class _Noting:
    """An embedder that keeps what it made: the batcher runs it in the thread that all embedding is done in."""

    trainable = False

    def __init__(self, inner: Embedder) -> None:
        self.inner = inner
        self.made: Vectors = np.empty((0, 0), np.float32)

    @property
    def fingerprint(self) -> str:
        """The inner embedder's."""
        return self.inner.fingerprint

    def fit(self, texts: Sequence[Text]) -> Self:
        """Return itself: it is fitted."""
        del texts
        return self

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Embed and keep."""
        self.made = self.inner.embed(texts)
        return self.made


async def explain(request: Request) -> Response:
    """Explain one text."""
    runtime = runtime_of(request)
    asked = await read_model(request, ExplainRequest, runtime.max_body)
    texts, single = inputs_of([*asked.input] if isinstance(asked.input, list) else asked.input, runtime)
    if not single:
        raise RefusalError(400, "explain takes one text", param="input")
    parts = (texts[0],) if isinstance(texts[0], str) else texts[0]
    if not all(part.strip() for part in parts):
        raise BadInputError("the text is empty")
    return JSONResponse(await explained(runtime, texts[0]))


async def explained(runtime: Runtime, text: Text) -> dict[str, Any]:
    """Return what the version that serves would do with a text."""
    loaded, redact = runtime.live.loaded, runtime.router.redact
    if loaded is None:
        return _outcome(None, None, "no_version")
    kept = text if redact is None else redact(text)
    if kept is WITHHELD:
        return _outcome(loaded, None, "policy_failed")
    noting = _Noting(loaded.policy.embedder)
    judged = await runtime.router.batcher.judge(replace(loaded.policy, embedder=noting), [kept])
    verdict = judged.verdicts[0]
    if isinstance(verdict, BadInputError):
        raise verdict
    if verdict is None:
        return _outcome(loaded, None, "policy_failed")
    found = _outcome(loaded, verdict, _held(runtime, verdict) or verdict.reason)
    return found | await run_in_threadpool(_evidence, runtime, loaded, kept, noting.made)


def _held(runtime: Runtime, verdict: Verdict) -> str | None:
    """Return why a certified answer would not count, None where it would."""
    if not verdict.handled:
        return None
    if runtime.closed is not None:
        return "gate_closed"
    return "observe" if runtime.task.spec.mode == "observe" else None


def _outcome(loaded: Loaded | None, verdict: Verdict | None, reason: str) -> dict[str, Any]:
    handled = verdict is not None and verdict.handled and reason == verdict.reason
    found: dict[str, Any] = {
        "version": None if loaded is None else loaded.number,
        "decision": "handled" if handled else "deferred",
        "reason": reason,
        "words": BRIEF.get(reason, reason.replace("_", " ")),
        **dict.fromkeys(("label", "runner_up", "score", "threshold")),
        **{name: [] for name in ("labels", "members", "nearest")},
    }
    if loaded is None or verdict is None:
        return found
    classes = loaded.policy.classes
    thresholds = class_thresholds(loaded.policy.certificate, classes)
    best = np.argsort(-verdict.proba, kind="stable")[:_LABELS]
    return found | {
        "label": verdict.label,
        "runner_up": verdict.runner_up,
        "score": _finite(verdict.score),
        "threshold": _finite(float(thresholds[int(np.flatnonzero(classes == verdict.label)[0])])),
        "labels": [{"label": str(classes[i]), "prob": round(float(verdict.proba[i]), 4)} for i in best],
    }


def _evidence(runtime: Runtime, loaded: Loaded, text: Text, vectors: Vectors) -> dict[str, Any]:
    folder = runtime.versions.folder(loaded.number)
    return {
        "members": _members(loaded.policy, text, vectors),
        "nearest": _nearest(runtime, loaded.policy, folder / NEAREST, vectors),
    }


def _members(policy: Policy, text: Text, vectors: Vectors) -> list[dict[str, Any]]:
    """Return what each member of a blend says; of a cascade, the last stage's."""
    surrogate = policy.surrogate
    if not isinstance(surrogate, Ensemble):
        return []
    proba = surrogate.predict_members(Inputs([text], vectors))[:, 0]
    names = [
        str(getattr(member, "type", f"member {i + 1}")) for i, member in enumerate(getattr(surrogate, "members", proba))
    ]
    return [
        {"member": name, "label": str(policy.classes[row.argmax()]), "prob": round(float(row.max()), 4)}
        for name, row in zip(names, proba, strict=True)
    ]


def _nearest(runtime: Runtime, policy: Policy, file: Path, vectors: Vectors) -> list[dict[str, Any]]:
    """Return the nearest traces that the store still has; a version of an older release does not know their ids."""
    if not file.is_file():
        return []
    ids = np.load(file, allow_pickle=False)
    near = policy.index.query(vectors)
    by_row = np.argsort(policy.index.rows)  # which lie cell by cell
    places = by_row[np.searchsorted(policy.index.rows, near.row[0], sorter=by_row)]
    found = []
    for place, cosine in zip(places, near.similarity[0], strict=True):
        trace = runtime.store.get(ids[place].decode("ascii")) if np.isfinite(cosine) else None
        if trace is not None and trace.teacher_label is not None:
            found.append({"text": joined(trace.input), "label": trace.teacher_label, "cosine": round(float(cosine), 4)})
        if len(found) == _KIN:
            break
    return found


def _finite(score: float) -> float | None:
    return round(score, 6) if math.isfinite(score) else None
