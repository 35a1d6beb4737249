"""``POST /v1/explain``: the decision on a text, and why. The teacher is not asked, and nothing is stored."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Self, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tracer_serve.components.neighbour_index import NeighbourIndex
from tracer_serve.config.fields import values_of
from tracer_serve.errors import BadInputError
from tracer_serve.gate.segments import segment_of_rows, thresholds_of
from tracer_serve.infra.redaction import WITHHELD
from tracer_serve.policy.decision import CERTIFIED, decide
from tracer_serve.policy.policy import Policy
from tracer_serve.protocols import Embedder, Ensemble, Surrogate
from tracer_serve.report.json_values import joined
from tracer_serve.report.reason_texts import BRIEF
from tracer_serve.server.http.context import runtime_of
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.http.json_response import JsonAnswer
from tracer_serve.server.http.request_body import Briefly, read_model
from tracer_serve.server.routes.classify import finite, inputs_of, says_something
from tracer_serve.serving.active_version import ActiveVersion
from tracer_serve.serving.runtime import Runtime
from tracer_serve.storage.versions.manifest import NEAREST
from tracer_serve.types import Inputs, Text, Vectors, Verdict

_NEIGHBOURS = 5
_LABELS = 5


class ExplainRequest(BaseModel):
    """One text to explain."""

    model_config = ConfigDict(extra="forbid", strict=True, title="ExplainRequest")

    input: str | Briefly[list[str]] = Field(description="One text; where the task classifies pairs, [first, second].")
    user: Annotated[str, Field(max_length=256)] | None = Field(default=None, description="Decides on a canary.")


class _Recording:
    """An embedder that keeps its last vectors; they are computed in the batcher's thread."""

    trainable = False

    def __init__(self, inner: Embedder) -> None:
        self.inner = inner
        self.vectors: Vectors = np.empty((0, 0), np.float32)

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
        self.vectors = self.inner.embed(texts)
        return self.vectors


async def explain(request: Request) -> Response:
    """Explain one text."""
    runtime = runtime_of(request)
    asked = await read_model(request, ExplainRequest, runtime.max_body)
    texts, single = inputs_of([*asked.input] if isinstance(asked.input, list) else asked.input, runtime)
    if not single:
        raise RefusalError(400, "explain takes one text", param="input")
    if not says_something(texts[0]):
        raise BadInputError("the text is empty")
    return JsonAnswer(await explained(runtime, texts[0], asked.user))


async def explained(runtime: Runtime, text: Text, user: str | None = None) -> dict[str, Any]:
    """Return the decision of the version that serves on a user's text."""
    loaded, redact = runtime.live.loaded, runtime.router.redact
    if loaded is None:
        return _outcome(None, None, "no_version")
    kept = text if redact is None else redact(text)
    if kept is WITHHELD:
        return _outcome(loaded, None, "policy_failed")
    policy, recorders = _recording(loaded.policy)
    (verdict,), _ = await runtime.router.batcher.judge(policy, [kept])
    if isinstance(verdict, BadInputError):
        raise verdict
    if verdict is None:
        return _outcome(loaded, None, "policy_failed")
    found = _outcome(loaded, verdict, _reason(runtime, loaded, kept, verdict, user), kept)
    return found | await run_in_threadpool(
        _evidence, runtime, loaded, kept, verdict.stage, recorders[verdict.stage].vectors
    )


def _recording(policy: Policy) -> tuple[Policy, list[_Recording]]:
    """Return the policy with embedders that keep their vectors, and these by stage."""
    views = {view: replace(view, embedder=_Recording(view.embedder)) for view in policy.views}
    stages = tuple(replace(stage, view=views[stage.view]) for stage in policy.stages)
    return replace(policy, stages=stages), [cast("_Recording", stage.view.embedder) for stage in stages]


def _reason(runtime: Runtime, loaded: ActiveVersion, text: Text, verdict: Verdict, user: str | None) -> str:
    conditions, bursts = runtime.router.conditions(loaded, user), runtime.watch.bursts
    return decide(verdict.reason, conditions, in_burst=bursts.defers(text))


def _outcome(loaded: ActiveVersion | None, verdict: Verdict | None, reason: str, text: Text = "") -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": None if loaded is None else loaded.number,
        "decision": "handled" if reason == CERTIFIED else "deferred",
        "reason": reason,
        "words": BRIEF.get(reason, reason.replace("_", " ")),
        **dict.fromkeys(("label", "runner_up", "score", "threshold")),
        **{name: [] for name in ("labels", "members", "nearest")},
    }
    if loaded is None or verdict is None:
        return found
    classes, certificate = loaded.policy.classes, loaded.policy.certificate
    (threshold,) = thresholds_of(
        certificate, classes, np.flatnonzero(classes == verdict.label), segment_of_rows(certificate, [text])
    )
    best = np.argsort(-verdict.proba, kind="stable")[:_LABELS]
    return found | {
        "label": verdict.label,
        "runner_up": verdict.runner_up,
        "score": finite(verdict.score),
        "threshold": finite(float(threshold)),
        "labels": [{"label": str(classes[i]), "prob": round(float(verdict.proba[i]), 4)} for i in best],
    }


def _evidence(runtime: Runtime, loaded: ActiveVersion, text: Text, asked: int, vectors: Vectors) -> dict[str, Any]:
    folder, stage = runtime.versions.folder(loaded.number), loaded.policy.stages[asked]
    return {
        "members": _members(stage.surrogate, text, vectors),
        "nearest": _nearest(runtime, stage.view.index, folder / NEAREST, vectors),
    }


def _members(surrogate: Surrogate, text: Text, vectors: Vectors) -> list[dict[str, Any]]:
    """Return the label of each member of a blend, or the value of each field; of a cascade, of the last stage asked."""
    if not isinstance(surrogate, Ensemble):
        return []
    proba, classes = surrogate.predict_members(Inputs([text], vectors))[:, 0], surrogate.classes_
    if fields := getattr(surrogate, "fields", ()):
        return [
            {
                "member": name,
                "label": json.dumps(values_of(str(classes[row.argmax()])).get(name), ensure_ascii=False),
                "prob": round(float(row.max()), 4),
            }
            for name, row in zip(fields, proba, strict=False)
        ]
    names = [
        str(getattr(member, "type", f"member {i + 1}")) for i, member in enumerate(getattr(surrogate, "members", proba))
    ]
    return [
        {"member": name, "label": str(classes[row.argmax()]), "prob": round(float(row.max()), 4)}
        for name, row in zip(names, proba, strict=True)
    ]


def _nearest(runtime: Runtime, index: NeighbourIndex, file: Path, vectors: Vectors) -> list[dict[str, Any]]:
    """Return the nearest traces in the store; none for a version of a release that did not store their ids."""
    if not file.is_file():
        return []
    ids = np.load(file, allow_pickle=False)
    near = index.query(vectors)
    places = np.searchsorted(np.sort(index.rows), near.row[0])
    found = []
    for place, cosine in zip(places, near.similarity[0], strict=True):
        trace = runtime.store.traces.get(ids[place].decode("ascii")) if np.isfinite(cosine) else None
        if trace is not None and trace.teacher_label is not None:
            found.append({"text": joined(trace.input), "label": trace.teacher_label, "cosine": round(float(cosine), 4)})
        if len(found) == _NEIGHBOURS:
            break
    return found
