"""Ensemble of surrogates. Agreement of dissimilar models is a better confidence signal than one model's probability."""

import json
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import encode, softmax
from tracer_serve.components.truncation import truncated
from tracer_serve.config.base import Component
from tracer_serve.errors import ArtifactError
from tracer_serve.protocols import HoldsOut, Resumable, RowScaled, Surrogate
from tracer_serve.types import Bools, Floats, Inputs, Ints, Labels, Text, Vectors

_DEFAULT = (Component(type="mlp"), Component(type="knn"), Component(type="ngram_svc"))
_STATE = "blend.json"
FLOOR = 1e-6
"""Least probability of a member: keeps its zero from vetoing the others."""
_HELD_OUT, _TRAINED = 1000, 2000  # rows for the temperatures; more change neither them nor the coverage
_PRIOR_ROWS = 20  # strength of the ridge towards equal weights, in held-out rows
_FEWEST = 20  # held-out rows below which a temperature would be noise


@surrogates.register("blend")
class Blend:
    """Logarithmic opinion pool of the members' probabilities, each member at its own temperature.

    Temperatures (Guo et al. 2017, "On calibration of modern neural networks") and then pool weights (Genest and Zidek
    1986, Heskes 1998) minimise the log loss on held-out rows of the fit. For that, members are first fitted on the
    other rows. A member that is no better than chance gets weight 0.

    An expensive member (`encoder`) is trained only once: its early-stopping rows are the blend's held-out rows, and the
    cheap members are fitted on the others. It performs a little better on those rows than on new ones, because its best
    epoch was chosen there. That can cost coverage but does not affect the certificate, which uses rows that neither
    trained nor weighted anything (gate.md, section 3).

    Parameters
    ----------
    members : names or blocks of any surrogates, including plugins
    seed : seed of the split for temperatures and weights
    descriptions : description of each label, for members that read it; set from the task's `labels`
    source : default model and revision of members that use one; set from the task's embedder

    Examples
    --------
    In the YAML::

        surrogates: [{type: blend, members: [logreg, {type: knn, k: 10}, prototype]}]
    """

    cost = 3.0  # CPU of a fit in units of logreg's: cheap candidates are compared first

    def __init__(
        self,
        *,
        members: Annotated[tuple[Component, ...], Field(min_length=1)] = _DEFAULT,
        seed: Annotated[int, Field(ge=0)] = 0,
        descriptions: dict[str, str] | None = None,
        source: tuple[str, str | None] | None = None,
    ) -> None:
        self.members, self.seed = members, seed
        context = {"descriptions": descriptions, "source": source}
        self.context = {name: value for name, value in context.items() if value}
        self.refit_rows: int | None = None
        self.classes_: Labels = np.empty(0, np.str_)
        self.sharpness_: Floats = np.ones(len(members))
        self.weights_: Floats = np.full(len(members), 1 / len(members))
        # built here, so that a wrong parameter of a member is reported with the spec
        self.fitted_ = [self._make(member) for member in members]
        self.cost = max(type(self).cost, *(float(getattr(member, "cost", 1.0)) for member in self.fitted_))

    @property
    def stable(self) -> bool:
        """Return whether every member is stable (`protocols.Surrogate`)."""
        return all(getattr(member, "stable", False) for member in self.fitted_)

    @property
    def resumes(self) -> bool:
        """Return whether a member warm-starts from an earlier version."""
        return any(isinstance(member, Resumable) and member.resumes for member in self.fitted_)

    def resume(self, folder: Path | None, seen: Ints, apart: Ints) -> None:
        """Warm-start members from the members at the same position of the blend in `folder`."""
        state = {} if folder is None else json.loads((folder / _STATE).read_text(encoding="utf-8"))
        before = [member["type"] for member in state.get("members", [])]
        for i, (component, member) in enumerate(zip(self.members, self.fitted_, strict=True)):
            if isinstance(member, Resumable) and member.resumes:
                known = folder is not None and before[i : i + 1] == [component.type]
                member.resume(folder / f"member_{i}" if folder and known else None, seen, apart)

    def fit(self, inputs: Inputs, labels: Labels) -> Self:
        """Learn temperatures and weights on a split of the n rows, then fit every member on all of them."""
        self.classes_, y = encode(labels)
        cheap = [member for member in self.fitted_ if not isinstance(member, HoldsOut)]
        for member in self.fitted_:
            if member not in cheap:
                self._fit(member, inputs, labels, len(y))
        self._learn_pool(inputs, labels, y)
        for member in cheap:
            self._fit(member, inputs, labels, len(y))
        return self

    def predict_members(self, inputs: Inputs) -> Vectors:
        """Return each member's probabilities at its own temperature, shape (m, n, k)."""
        pairs = zip(self.fitted_, self.sharpness_, strict=True)
        return np.stack([softmax(sharpness * self._logs(member, inputs)) for member, sharpness in pairs])

    def combine(self, members: Vectors) -> Vectors:
        """Return the blend (n, k) of the members' probabilities (m, n, k)."""
        logs = np.log(np.maximum(members, FLOOR))
        return softmax((self.weights_ @ logs.reshape(len(logs), -1)).reshape(logs.shape[1:]))

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        return self.combine(self.predict_members(inputs))

    def truncates(self, texts: Sequence[Text]) -> Bools:
        """Return which texts a member reads only in part."""
        return reduce(np.logical_or, [truncated(member, texts) for member in self.fitted_])

    def save(self, folder: Path) -> None:
        """Write each member into a folder of its own."""
        state = {
            "members": [{"type": member.type, **member.params} for member in self.members],
            "seed": self.seed,
            "refit_rows": self.refit_rows,
            "classes": self.classes_.tolist(),
            "sharpness": self.sharpness_.tolist(),
            "weights": self.weights_.tolist(),
        }
        (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")
        for i, member in enumerate(self.fitted_):
            save_component(member, folder / f"member_{i}")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        try:
            state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            blend = cls(members=tuple(Component(**member) for member in state["members"]), seed=state["seed"])
            blend.refit_rows, blend.classes_ = state["refit_rows"], np.array(state["classes"], np.str_)
            blend.sharpness_, blend.weights_ = np.array(state["sharpness"]), np.array(state["weights"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{folder}: the state of a blend cannot be read: {error}") from error
        types = [surrogates.get(member.type) for member in blend.members]
        blend.fitted_ = [load_component(kind, folder / f"member_{i}") for i, kind in enumerate(types)]
        return blend

    def _make(self, member: Component) -> Surrogate:
        return surrogates.build(member.type, member.params, self.context)

    def _fit(self, member: Surrogate, inputs: Inputs, labels: Labels, rows: int) -> Surrogate:
        if isinstance(member, RowScaled):
            member.refit_rows = self.refit_rows or rows
        return member.fit(inputs, labels)

    def _split(self, rows: int) -> tuple[Ints, Ints]:
        """Return the held-out rows that fit the pool, and the rows that fit the cheap members for it."""
        held = [member.held_out_ for member in self.fitted_ if isinstance(member, HoldsOut)]
        if held:
            common = reduce(np.intersect1d, held)
            return common, np.setdiff1d(np.arange(rows), common)
        order = np.random.default_rng(self.seed).permutation(rows)
        count = min(rows // 5, _HELD_OUT)
        return np.sort(order[:count]), np.sort(order[count : count + _TRAINED])

    def _learn_pool(self, inputs: Inputs, labels: Labels, y: Ints) -> None:
        equal = np.full(len(self.members), 1 / len(self.members))
        self.sharpness_, self.weights_ = np.ones(len(self.members)), equal
        out, rest = self._split(len(y))
        out = out[np.isin(y[out], y[rest])]  # a label without training rows says nothing about temperatures
        if len(out) < _FEWEST or len(np.unique(y[rest])) < 2:  # noqa: PLR2004  # a single class
            return
        held_out, others = inputs.take(out), inputs.take(rest)
        logs = []
        for component, member in zip(self.members, self.fitted_, strict=True):
            asked = member
            if not isinstance(member, HoldsOut):
                asked = self._fit(self._make(component), others, labels[rest], len(y))
            logs.append(self._logs(asked, held_out))
        one = np.ones(1)
        self.sharpness_ = np.array([_pool([member], y[out], one, 0.0)[0] for member in logs])
        calm = [np.log(np.maximum(softmax(s * part), FLOOR)) for s, part in zip(self.sharpness_, logs, strict=True)]
        self.weights_ = _pool(calm, y[out], equal, _PRIOR_ROWS)

    def _logs(self, member: Surrogate, inputs: Inputs) -> Vectors:
        """Return a member's log probabilities in the columns of the blend's classes."""
        proba = member.predict_proba(inputs).astype(np.float32, copy=False)
        if len(member.classes_) < len(
            self.classes_
        ):  # skipped if equal: looking up labels takes longer than predicting one row
            known = proba
            proba = np.full((len(inputs), len(self.classes_)), FLOOR, np.float32)
            proba[:, np.searchsorted(self.classes_, member.classes_)] = known
        logs: Vectors = np.log(np.maximum(proba, FLOOR))
        return logs


def _pool(logs: list[Vectors], y: Ints, start: Floats, prior_rows: float) -> Floats:
    """Return the pool weights of log probabilities, each (n, k), that minimise the log loss (a convex problem).

    A ridge pulls them towards `start` with the strength of `prior_rows` rows.
    """
    from scipy.optimize import minimize  # noqa: PLC0415  # needed by the fit only

    stack, rows = np.stack(logs), np.arange(len(y))
    observed = stack[:, rows, y].sum(axis=1)

    def loss(weights: Floats) -> tuple[float, Floats]:
        pooled = np.tensordot(weights, stack, 1)
        proba = softmax(pooled)
        distance = weights - start
        value = -np.log(np.maximum(proba[rows, y], 1e-30)).sum() + prior_rows * (distance**2).sum() / 2
        return float(value), np.einsum("nk,mnk->m", proba, stack) - observed + prior_rows * distance

    found: Floats = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 10.0)] * len(start)).x
    return found
