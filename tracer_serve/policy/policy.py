"""The immutable policy: stages and certificate, from texts to verdicts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracer_serve.errors import ArtifactError
from tracer_serve.gate.certificate import CERTIFICATE, Certificate
from tracer_serve.gate.segments import segment_of_rows
from tracer_serve.policy.decision import CERTIFIED, certificate_reasons
from tracer_serve.policy.stage import Stage, StageEvidence, name_of
from tracer_serve.policy.view import Batch, View
from tracer_serve.protocols import Acceptor, Embedder, Surrogate
from tracer_serve.types import Bools, Floats, Ints, Labels, Text, Vectors, Verdict


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """A batch as a policy sees it, n rows: everything that leads to the decision.

    Parameters
    ----------
    proba : of the stage that was asked last, shape (n, k)
    top : the most probable class, shape (n,)
    score : on the policy's path, shape (n,)
    scope : scope score of that stage, shape (n,)
    stage : the stage that was asked last, counted from 0, shape (n,)
    handled : shape (n,)
    reason : why, as in `Verdict`, shape (n,)
    embed_s : time spent in embedders, seconds
    """

    proba: Vectors
    top: Ints
    score: Floats
    scope: Floats
    stage: Ints
    handled: Bools
    reason: Labels
    embed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """One version's decision rule.

    Parameters
    ----------
    stages : one, or several for a cascade, in the order in which they are asked; all of them know the same classes
    """

    stages: tuple[Stage, ...]
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

    @property
    def view(self) -> View:
        """The last stage's."""
        return self.stages[-1].view

    @property
    def views(self) -> tuple[View, ...]:
        """The stages' views, each once, in the order in which they are needed."""
        return tuple(dict.fromkeys(stage.view for stage in self.stages))

    @property
    def fingerprint(self) -> str:
        """The embedders' fingerprints."""
        return ", ".join(view.embedder.fingerprint for view in self.views)

    def score(self, texts: Sequence[Text], known: Mapping[View, Vectors] | None = None) -> ScoredBatch:
        """Score a batch of n texts.

        A stage is asked only for what no earlier one handles, and only that is embedded for it.

        Parameters
        ----------
        known : vectors that the caller has already, shape (n, d), by view
        """
        batch = Batch(texts, known or {})
        asked = self.stages[0].ask(*batch.seen_by(self.stages[0].view, np.arange(len(texts))))
        proba, top, score, scope = asked.proba, asked.top, asked.score, asked.scope
        segment = segment_of_rows(self.certificate, texts)
        reason = self._reasons(self.stages[0], asked, segment)
        stage = np.zeros(len(texts), np.int64)
        for number, later in enumerate(self.stages[1:], start=1):
            rows = np.flatnonzero(reason != CERTIFIED)
            if not len(rows):
                break
            if number == 1:
                proba, score = proba.copy(), np.asarray(score).copy()  # they may be a surrogate's own
            asked = later.ask(*batch.seen_by(later.view, rows))
            proba[rows], top[rows], score[rows], scope[rows] = asked.proba, asked.top, asked.score, asked.scope
            reason[rows] = self._reasons(later, asked, None if segment is None else segment[rows])
            stage[rows] = number
        return ScoredBatch(proba, top, score, scope, stage, reason == CERTIFIED, reason, batch.embed_s)

    def ask_all(self, texts: Sequence[Text], known: Mapping[View, Vectors]) -> tuple[StageEvidence, ...]:
        """Ask every stage about every row, for a calibration; `known` as in `score`."""
        batch, rows = Batch(texts, known), np.arange(len(texts))
        return tuple(stage.ask(*batch.seen_by(stage.view, rows)) for stage in self.stages)

    def decide(self, texts: Sequence[Text]) -> list[Verdict]:
        """Decide a batch of n texts: one verdict per text, in order."""
        return self.verdicts(self.score(texts)) if texts else []

    def verdicts(self, seen: ScoredBatch) -> list[Verdict]:
        """Return what was found on each row of a batch."""
        runner_up = np.argsort(seen.proba, axis=1)[:, -2] if len(self.classes) > 1 else None
        return [
            Verdict(
                label=str(self.classes[top]),
                score=float(seen.score[i]),
                handled=bool(seen.handled[i]),
                reason=str(seen.reason[i]),
                runner_up=None if runner_up is None else str(self.classes[runner_up[i]]),
                proba=seen.proba[i],
                stage=int(seen.stage[i]),
            )
            for i, top in enumerate(seen.top)
        ]

    def save(self, folder: Path) -> None:
        """Write the policy into a new folder, without pickle."""
        folder.mkdir(parents=True)
        views = self.views
        for number, view in enumerate(views):
            view.save(folder / f"view_{number}")
        for number, stage in enumerate(self.stages):
            stage.save(folder / f"stage_{number}", views.index(stage.view))
        facts = {
            "views": len(views),
            "stages": len(self.stages),
            "certificate": CERTIFICATE.dump_python(self.certificate, mode="json"),
        }
        (folder / "policy.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *embedders: Embedder) -> "Policy":
        """Read a policy; `embedders` are the running spec's, whose fitted state is taken from the folder.

        Raises
        ------
        ArtifactError
            Where files are missing or unreadable, or were fitted with another embedder.
        """
        try:
            facts = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
            numbers = range(facts["views"]), range(facts["stages"])
            certificate = CERTIFICATE.validate_python(facts["certificate"])
        except OSError as error:
            raise ArtifactError(f"{folder}/policy.json cannot be read: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{folder}/policy.json is not as this release writes it ({' '.join(repr(error).split())}). Another one"
                " may have: `tracer-serve refit TASK.yaml` writes a version anew"
            ) from error
        views = [View.load(folder / f"view_{number}", embedders) for number in numbers[0]]
        stages = tuple(Stage.load(folder / f"stage_{number}", views) for number in numbers[1])
        return cls(stages, certificate)

    def _reasons(self, stage: Stage, asked: StageEvidence, segment: Labels | None) -> Labels:
        """Return why a stage answers each row that it was asked about, or not."""
        return certificate_reasons(
            self.certificate,
            self.classes,
            score=asked.score,
            top=asked.top,
            in_scope=stage.in_scope(asked),
            open_=stage.open[asked.top],
            vetoed=stage.vetoed(asked),
            segment=segment,
        )
