"""The immutable policy: embedder, stages, scope guard and certificate, from texts to verdicts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from tracer_serve.errors import ArtifactError
from tracer_serve.gate.classes import class_thresholds
from tracer_serve.gate.scope import scope_scores
from tracer_serve.neighbours import NeighbourIndex
from tracer_serve.protocols import Acceptor, Embedder, Surrogate
from tracer_serve.records import Bools, Certificate, Floats, Inputs, Ints, Labels, Neighbours, Text, Vectors, Verdict
from tracer_serve.stages import Asked, Stage, name_of
from tracer_serve.state import load_component, save_component

CERTIFICATE = TypeAdapter(Certificate)
"""Certificate to JSON and back; infinite thresholds as strings, which JSON proper can hold."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A batch as a policy sees it, n rows: everything that leads to the decision.

    Parameters
    ----------
    proba : of the stage that was asked last, shape (n, k)
    top : the most probable class, shape (n,)
    score : on the policy's path, shape (n,)
    scope : scope score, shape (n,)
    stage : the stage that was asked last, counted from 0, shape (n,)
    handled : shape (n,)
    reason : why, as in `Verdict`, shape (n,)
    """

    proba: Vectors
    top: Ints
    score: Floats
    scope: Floats
    stage: Ints
    handled: Bools
    reason: Labels


@dataclass(frozen=True, slots=True)
class Policy:
    """One version's decision rule.

    Parameters
    ----------
    stages : one, or several for a cascade, in the order in which they are asked; all of them know the same classes
    index : nearest training rows
    scope_threshold : least scope score that may be handled, judged by the first stage; -inf turns the guard off
    """

    embedder: Embedder
    stages: tuple[Stage, ...]
    index: NeighbourIndex
    scope_threshold: float
    certificate: Certificate

    @property
    def classes(self) -> Labels:
        """The labels that can be given, sorted, shape (k,)."""
        return self.surrogate.classes_

    @property
    def surrogate(self) -> Surrogate:
        """The last stage's, which is the strongest."""
        return self.stages[-1].surrogate

    @property
    def acceptor(self) -> Acceptor | None:
        """The last stage's."""
        return self.stages[-1].acceptor

    @property
    def names(self) -> tuple[str, str | None]:
        """Surrogates and acceptors in words."""
        return name_of([stage.names for stage in self.stages])

    def score(self, texts: Sequence[Text], embeddings: Vectors | None = None) -> Scored:
        """Score a batch of n texts; `embeddings` (n, d) spares the embedder.

        A later stage is asked only for what is in scope and not handled yet.
        """
        vectors = self.embedder.embed(texts) if embeddings is None else embeddings
        inputs = Inputs(texts, vectors)
        near = self.index.near(inputs)
        threshold = class_thresholds(self.certificate, self.classes)
        first = self.stages[0].ask(inputs, near)
        scope = scope_scores(first.proba, near.similarity)
        in_scope = scope >= self.scope_threshold
        proba, top, score = first.proba, first.top.copy(), np.asarray(first.score).copy()
        handled = in_scope & self._passes(0, first, threshold)
        stage = np.zeros(len(texts), np.int64)
        for number, later in enumerate(self.stages[1:], start=1):
            rows = np.flatnonzero(in_scope & ~handled)
            if not len(rows):
                break
            asked = later.ask(inputs.take(rows), _take(near, rows))
            proba = proba.copy() if number == 1 else proba
            proba[rows], top[rows], score[rows], stage[rows] = asked.proba, asked.top, asked.score, number
            handled[rows] = self._passes(number, asked, threshold)
        reason = self._reasons(top, stage, handled, in_scope, threshold)
        return Scored(proba, top, score, scope, stage, handled, reason)

    def ask_all(self, texts: Sequence[Text], vectors: Vectors) -> tuple[tuple[Asked, ...], Floats]:
        """Ask every stage about every row, for a calibration, and return the scope scores too."""
        inputs = Inputs(texts, vectors)
        near = self.index.near(inputs)
        asked = tuple(stage.ask(inputs, near) for stage in self.stages)
        return asked, scope_scores(asked[0].proba, near.similarity)

    def decide(self, texts: Sequence[Text], embeddings: Vectors | None = None) -> list[Verdict]:
        """Decide a batch of n texts: one verdict per text, in order."""
        if not texts:
            return []
        seen = self.score(texts, embeddings)
        runner_up = np.argsort(seen.proba, axis=1)[:, -2] if len(self.classes) > 1 else None
        return [
            Verdict(
                label=str(self.classes[top]),
                score=float(seen.score[i]),
                handled=bool(seen.handled[i]),
                reason=str(seen.reason[i]),
                runner_up=None if runner_up is None else str(self.classes[runner_up[i]]),
                proba=seen.proba[i],
            )
            for i, top in enumerate(seen.top)
        ]

    def save(self, folder: Path) -> None:
        """Write the policy into a new folder, without pickle."""
        folder.mkdir(parents=True)
        for number, stage in enumerate(self.stages):
            stage.save(folder / f"stage_{number}")
        save_component(self.index, folder / "index")
        if self.embedder.trainable:
            save_component(self.embedder, folder / "embedder")
        facts = {
            "stages": len(self.stages),
            "scope_threshold": self.scope_threshold,
            "embedder_fingerprint": self.embedder.fingerprint,
            "certificate": CERTIFICATE.dump_python(self.certificate, mode="json"),
        }
        (folder / "policy.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, embedder: Embedder) -> "Policy":
        """Read a policy; `embedder` is the running spec's, whose fitted state is taken from the folder.

        Raises
        ------
        ArtifactError
            Where files are missing or unreadable, or were fitted with another embedder.
        """
        try:
            facts = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{folder}/policy.json cannot be read: {error}") from error
        if embedder.trainable:
            embedder = load_component(type(embedder), folder / "embedder")
        if embedder.fingerprint != facts["embedder_fingerprint"]:
            raise ArtifactError(
                f"{folder} was certified with the embedder {facts['embedder_fingerprint']}, the spec now names"
                f" {embedder.fingerprint}: its certificate is void. Put the old embedder back, or refit."
            )
        return cls(
            embedder=embedder,
            stages=tuple(Stage.load(folder / f"stage_{number}") for number in range(facts["stages"])),
            index=load_component(NeighbourIndex, folder / "index"),
            scope_threshold=facts["scope_threshold"],
            certificate=CERTIFICATE.validate_python(facts["certificate"]),
        )

    def _passes(self, number: int, asked: Asked, threshold: Floats) -> Bools:
        passes: Bools = np.isfinite(asked.score) & (asked.score >= threshold[asked.top])
        return passes & self.stages[number].open[asked.top] & self.certificate.certified

    def _reasons(self, top: Ints, stage: Ints, handled: Bools, in_scope: Bools, threshold: Floats) -> Labels:
        if handled.all():
            return np.full(len(top), "certified")
        may_answer = np.stack([one.open for one in self.stages])[stage, top] & (threshold[top] < np.inf)
        uncertified = np.full(len(top), not self.certificate.certified)
        return np.select(
            [handled, uncertified, ~in_scope, ~may_answer],
            ["certified", "no_certificate", "out_of_scope", "class_not_certified"],
            "below_threshold",
        )


def _take(near: Neighbours, rows: Ints) -> Neighbours:
    return Neighbours(near.similarity[rows], near.label[rows], near.row[rows])
