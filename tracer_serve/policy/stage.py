"""One stage of a policy: a surrogate, its acceptor, its scope guard, and where its score lies on the policy's path.

A policy has one stage, or several for a cascade: a later stage is asked only for what the earlier ones defer. They
share the path on which the policy's threshold lies (`score_scale.Scale`). Everything else is the stage's own: its view
(`view.View`) and its scope guard.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self, cast

import numpy as np

from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import acceptors, surrogates
from tracer_serve.components.truncation import truncated
from tracer_serve.errors import ArtifactError
from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.scope_guard import scope_scores
from tracer_serve.gate.segments import segment_of_rows
from tracer_serve.policy.decision import certificate_reasons
from tracer_serve.policy.input_range import Novelty
from tracer_serve.policy.score_scale import Scale
from tracer_serve.policy.verdicts import Verdicts
from tracer_serve.policy.view import View
from tracer_serve.protocols import Acceptor, Ensemble, Surrogate
from tracer_serve.types import Bools, Evidence, Floats, Inputs, Ints, Neighbours, Text, Vectors


def gather(surrogate: Surrogate, inputs: Inputs, neighbours: Neighbours) -> Evidence:
    """Predict a batch by the surrogate and, for a blend, by each member."""
    if _is_ensemble(type(surrogate)):
        ensemble = cast("Ensemble", surrogate)
        members = ensemble.predict_members(inputs)
        proba = ensemble.combine(members)
    else:
        proba = surrogate.predict_proba(inputs).astype(np.float32, copy=False)
        members = proba[None]
    return Evidence(inputs, proba, members, neighbours)


@cache
def _is_ensemble(kind: type) -> bool:
    return issubclass(kind, Ensemble)  # cached: the check of a protocol is slow


@dataclass(frozen=True, slots=True)
class Stage:
    """A fitted surrogate with its acceptor and its guards.

    Parameters
    ----------
    view : its embedder and neighbour index
    acceptor : None for the family `global`, which scores every row 0
    names : registry names of surrogate and acceptor
    open : classes that this stage may answer, shape (k,); the class floor closes the others
    limits : probability of each class above which no other label is answered, inf but for protected labels, shape (k,)
    scale : puts the acceptor's score on the policy's path
    scope_threshold : least scope score that it may answer; -inf turns the guard off
    """

    view: View
    surrogate: Surrogate
    acceptor: Acceptor | None
    names: tuple[str, str | None]
    open: Bools
    limits: Floats
    scale: Scale
    scope_threshold: float = -math.inf

    def ask(
        self, inputs: Inputs, neighbours: Neighbours, novelty: Novelty, certificate: Certificate, number: int = 0
    ) -> Verdicts:
        """Predict, score and decide n inputs.

        Parameters
        ----------
        number : the stage's place in its policy, from 0
        """
        seen = gather(self.surrogate, inputs, neighbours)
        top, classes = seen.proba.argmax(axis=1), self.surrogate.classes_
        score: Floats = np.zeros(len(inputs))
        if self.acceptor is not None:
            score = self.acceptor.score(self.acceptor.features(seen))
        score, scope = self.scale(score), scope_scores(seen.proba, neighbours.similarity, novelty.rarity)
        reason = certificate_reasons(
            certificate,
            classes,
            score=score,
            top=top,
            too_long=novelty.too_long | self.truncates(inputs.texts),
            in_scope=scope >= self.scope_threshold,
            open_=self.open[top],
            vetoed=self.vetoed(seen.proba, top),
            segment=segment_of_rows(certificate, inputs.texts),
        )
        stage = np.full(len(inputs), number, np.int64)
        return Verdicts(classes, seen.proba, top, score, scope, reason, stage)

    def truncates(self, texts: Sequence[Text]) -> Bools:
        """Return which texts its embedder or its surrogate reads only in part, shape (n,)."""
        return truncated(self.view.embedder, texts) | truncated(self.surrogate, texts)

    def vetoed(self, proba: Vectors, top: Ints) -> Bools:
        """Return which inputs may have a protected label other than the most probable one, shape (n,).

        Parameters
        ----------
        proba : shape (n, k)
        top : the most probable class, shape (n,)
        """
        found = np.zeros(len(top), bool)
        for label in np.flatnonzero(np.isfinite(self.limits)):
            found |= (proba[:, label] > self.limits[label]) & (top != label)
        return found

    def save(self, folder: Path, view: int) -> None:
        """Write into a new folder, without pickle; of its view the number."""
        folder.mkdir()
        save_component(self.surrogate, folder / "surrogate")
        if self.acceptor is not None:
            save_component(self.acceptor, folder / "acceptor")
        facts = {
            "surrogate": self.names[0],
            "acceptor": self.names[1],
            "view": view,
            "scope_threshold": str(self.scope_threshold),  # JSON proper knows no infinity
            "closed": np.flatnonzero(~self.open).tolist(),
            "limits": {int(i): float(self.limits[i]) for i in np.flatnonzero(np.isfinite(self.limits))},
            "scale": [self.scale.knots.tolist(), self.scale.values.tolist()],
            "least": str(self.scale.least),
        }
        (folder / "stage.json").write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, views: Sequence[View]) -> Self:
        """Read back what `save` wrote; `views` are the policy's, by number.

        Raises
        ------
        ArtifactError
            If a file is missing or unreadable.
        """
        try:
            facts = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
            knots, values = (np.array(part, dtype=np.float64) for part in facts["scale"])
            names = facts["surrogate"], facts["acceptor"]
            least, scope = float(facts["least"]), float(facts["scope_threshold"])
            closed = np.array(facts["closed"], dtype=np.int64)
            limits = {int(label): float(limit) for label, limit in facts["limits"].items()}
            view = views[facts["view"]]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ArtifactError(f"{folder}/stage.json cannot be read: {error}") from error
        surrogate = load_component(surrogates.get(names[0]), folder / "surrogate")
        classes = len(surrogate.classes_)
        return cls(
            view=view,
            surrogate=surrogate,
            acceptor=None if names[1] is None else load_component(acceptors.get(names[1]), folder / "acceptor"),
            names=names,
            open=~np.isin(np.arange(classes), closed),
            limits=np.array([limits.get(label, np.inf) for label in range(classes)]),
            scale=Scale(knots, values, least),
            scope_threshold=scope,
        )


def name_of(names: Sequence[tuple[str, str | None]]) -> tuple[str, str | None]:
    """Return stages in words: the surrogates and the acceptors in the order in which they are asked.

    Examples
    --------
    >>> name_of([("knn", "margin"), ("blend", "logistic")])
    ('knn, then blend', 'margin, then logistic')
    """
    accepting = [acceptor for _, acceptor in names if acceptor is not None]
    return ", then ".join(surrogate for surrogate, _ in names), ", then ".join(accepting) or None
