"""The immutable policy: embedder, surrogate, acceptor, scope guard and threshold, from texts to verdicts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from tracer_serve.errors import ArtifactError
from tracer_serve.gate.scope import scope_scores
from tracer_serve.neighbours import NeighbourIndex
from tracer_serve.protocols import Acceptor, Embedder, Ensemble, Surrogate
from tracer_serve.records import (
    Bools,
    Certificate,
    Evidence,
    Floats,
    Inputs,
    Labels,
    Neighbours,
    Text,
    Vectors,
    Verdict,
)
from tracer_serve.registry import acceptors, surrogates
from tracer_serve.state import load_component, save_component

CERTIFICATE = TypeAdapter(Certificate)
"""Certificate to JSON and back; infinite thresholds as strings, which JSON proper can hold."""


def gather(surrogate: Surrogate, inputs: Inputs, neighbours: Neighbours) -> Evidence:
    """Ask the surrogate, and each member of a blend, about a batch."""
    if isinstance(surrogate, Ensemble):
        members = surrogate.predict_members(inputs)
        proba = surrogate.combine(members)
    else:
        proba = surrogate.predict_proba(inputs).astype(np.float32, copy=False)
        members = proba[None]
    return Evidence(inputs, proba, members, neighbours)


@dataclass(frozen=True, slots=True)
class Scored:
    """A batch as a policy sees it, n rows: everything that leads to the decision."""

    evidence: Evidence
    top: np.ndarray[tuple[int], np.dtype[np.intp]]
    score: Floats
    scope: Floats
    handled: Bools


@dataclass(frozen=True, slots=True)
class Policy:
    """One version's decision rule.

    Parameters
    ----------
    acceptor : None for the family `global`, which scores every row 0
    index : nearest training rows
    scope_threshold : least scope score that may be handled; -inf turns the guard off
    names : registry names of surrogate and acceptor (None: global)
    """

    embedder: Embedder
    surrogate: Surrogate
    acceptor: Acceptor | None
    index: NeighbourIndex
    scope_threshold: float
    certificate: Certificate
    names: tuple[str, str | None]

    @property
    def classes(self) -> Labels:
        """The labels the surrogate can give, sorted, shape (k,)."""
        return self.surrogate.classes_

    def score(self, texts: Sequence[Text], embeddings: Vectors | None = None) -> Scored:
        """Score a batch of n texts; `embeddings` (n, d) spares the embedder."""
        vectors = self.embedder.embed(texts) if embeddings is None else embeddings
        evidence = gather(self.surrogate, Inputs(texts, vectors), self.index.query(vectors))
        top = evidence.proba.argmax(axis=1)
        score = np.zeros(len(texts)) if self.acceptor is None else self._accept(self.acceptor, evidence)
        scope = scope_scores(evidence.proba, evidence.neighbours.similarity)
        passes = np.isfinite(score) & (score >= self.certificate.threshold) & (scope >= self.scope_threshold)
        return Scored(evidence, top, score, scope, passes & self.certificate.certified)

    def decide(self, texts: Sequence[Text], embeddings: Vectors | None = None) -> list[Verdict]:
        """Decide a batch of n texts: one verdict per text, in order."""
        if not texts:
            return []
        seen = self.score(texts, embeddings)
        proba, classes = seen.evidence.proba, self.classes
        runner_up = np.argsort(proba, axis=1)[:, -2] if len(classes) > 1 else None
        return [
            Verdict(
                label=str(classes[top]),
                score=float(seen.score[i]),
                handled=bool(seen.handled[i]),
                reason=self._reason(seen, i),
                runner_up=None if runner_up is None else str(classes[runner_up[i]]),
                proba=proba[i],
            )
            for i, top in enumerate(seen.top)
        ]

    def save(self, folder: Path) -> None:
        """Write the policy into a new folder, without pickle."""
        folder.mkdir(parents=True)
        save_component(self.surrogate, folder / "surrogate")
        save_component(self.index, folder / "index")
        if self.acceptor is not None:
            save_component(self.acceptor, folder / "acceptor")
        if self.embedder.trainable:
            save_component(self.embedder, folder / "embedder")
        facts = {
            "surrogate": self.names[0],
            "acceptor": self.names[1],
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
        acceptor = facts["acceptor"]
        return cls(
            embedder=embedder,
            surrogate=load_component(surrogates.get(facts["surrogate"]), folder / "surrogate"),
            acceptor=None if acceptor is None else load_component(acceptors.get(acceptor), folder / "acceptor"),
            index=load_component(NeighbourIndex, folder / "index"),
            scope_threshold=facts["scope_threshold"],
            certificate=CERTIFICATE.validate_python(facts["certificate"]),
            names=(facts["surrogate"], acceptor),
        )

    @staticmethod
    def _accept(acceptor: Acceptor, evidence: Evidence) -> Floats:
        return acceptor.score(acceptor.features(evidence))

    def _reason(self, seen: Scored, i: int) -> str:
        if seen.handled[i]:
            return "certified"
        if not self.certificate.certified:
            return "no_certificate"
        return "out_of_scope" if seen.scope[i] < self.scope_threshold else "below_threshold"
