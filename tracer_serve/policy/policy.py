"""The immutable policy: stages and certificate; it turns texts into verdicts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.errors import ArtifactError
from tracer_serve.gate.certificate import CERTIFICATE, Certificate
from tracer_serve.policy.input_range import InputRange
from tracer_serve.policy.stage import Stage, name_of
from tracer_serve.policy.verdicts import Verdicts
from tracer_serve.policy.view import Batch, View
from tracer_serve.protocols import Acceptor, Embedder, Surrogate
from tracer_serve.types import Bools, Labels, Text, Vectors, Verdict


@dataclass(frozen=True, slots=True)
class Policy:
    """One version's decision rule.

    Parameters
    ----------
    stages : one, or several for a cascade, in the order in which they are asked; all of them know the same classes
    inputs : the range of inputs that it was fitted on; what lies beyond is never handled
    """

    stages: tuple[Stage, ...]
    certificate: Certificate
    inputs: InputRange = field(default_factory=InputRange)

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

    def score(self, texts: Sequence[Text], known: Mapping[View, Vectors] | None = None) -> Verdicts:
        """Decide a batch of n texts; the verdicts in columns.

        A stage is asked only for what no earlier one handles, and only that is embedded for it.

        Parameters
        ----------
        known : vectors that the caller has already, shape (n, d), by view
        """
        batch, first, novelty = Batch(texts, known or {}), self.stages[0], self.inputs.compare(texts)
        found = first.ask(*batch.seen_by(first.view, np.arange(len(texts))), novelty, self.certificate)
        for number, later in enumerate(self.stages[1:], start=1):
            rows = np.flatnonzero(~found.handled)
            if not len(rows):
                break
            asked = later.ask(*batch.seen_by(later.view, rows), novelty.take(rows), self.certificate, number)
            found = found.updated(rows, asked)
        return replace(found, embed_s=batch.embed_s)

    def ask_all(self, texts: Sequence[Text], known: Mapping[View, Vectors]) -> tuple[Verdicts, ...]:
        """Ask every stage about every row, for a calibration; `known` as in `score`."""
        batch, rows, novelty = Batch(texts, known), np.arange(len(texts)), self.inputs.compare(texts)
        return tuple(
            stage.ask(*batch.seen_by(stage.view, rows), novelty, self.certificate, number)
            for number, stage in enumerate(self.stages)
        )

    def too_long(self, texts: Sequence[Text]) -> Bools:
        """Return which texts each stage defers for their length, shape (s, n)."""
        beyond = self.inputs.compare(texts).too_long
        return np.stack([beyond | stage.truncates(texts) for stage in self.stages])

    def decide(self, texts: Sequence[Text]) -> list[Verdict]:
        """Decide a batch of n texts: one verdict per text, in order."""
        return self.score(texts).rows() if texts else []

    def save(self, folder: Path) -> None:
        """Write the policy into a new folder, without pickle."""
        folder.mkdir(parents=True)
        views = self.views
        for number, view in enumerate(views):
            view.save(folder / f"view_{number}")
        for number, stage in enumerate(self.stages):
            stage.save(folder / f"stage_{number}", views.index(stage.view))
        save_component(self.inputs, folder / "inputs")
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
            If files are missing or unreadable, or were fitted with another embedder.
        """
        try:
            facts = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
            numbers = range(facts["views"]), range(facts["stages"])
            certificate = CERTIFICATE.validate_python(facts["certificate"])
        except OSError as error:
            raise ArtifactError(f"{folder}/policy.json cannot be read: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{folder}/policy.json was not written by this release ({' '.join(repr(error).split())})."
                " `tracer-serve refit TASK.yaml` writes a new version"
            ) from error
        views = [View.load(folder / f"view_{number}", embedders) for number in numbers[0]]
        stages = tuple(Stage.load(folder / f"stage_{number}", views) for number in numbers[1])
        return cls(stages, certificate, load_component(InputRange, folder / "inputs"))
