"""Several surrogates as one: where models that see different things agree, an answer is safer than any knows."""

import json
from functools import reduce
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from tracer_serve.components.persistence import load_component, save_component
from tracer_serve.components.registry import surrogates
from tracer_serve.components.surrogates._arrays import encode, softmax
from tracer_serve.config.base import Component
from tracer_serve.errors import ArtifactError
from tracer_serve.protocols import HoldsOut, Resumable, RowScaled, Surrogate
from tracer_serve.types import Floats, Inputs, Ints, Labels, Vectors

_DEFAULT = (Component(type="mlp"), Component(type="knn"), Component(type="ngram_svc"))
_STATE = "blend.json"
_FLOOR = 1e-6  # a class that a member holds impossible must not veto the others
_HELD_OUT, _TRAINED = 1000, 2000  # rows for the temperatures: more cost time and move neither them nor the coverage
_PRIOR_ROWS = 20  # a ridge on the weights: equal ones are as good as so many held-out rows say
_FEWEST = 20  # held-out rows below which a temperature would be noise


@surrogates.register("blend")
class Blend:
    """Normalised exp of the members' weighted log probabilities, each member at its own temperature.

    Temperatures (Guo et al. 2017, "On calibration of modern neural networks") and then weights (a logarithmic opinion
    pool: Genest and Zidek 1986, Heskes 1998) minimise the log loss on held-out rows of the fit: members are first
    fitted on a part of the rows. A member that knows nothing of the task is silenced instead of diluting the others.

    A dear member (`encoder`) is trained once. The rows that it holds out to know when to stop are the held-out rows of
    the blend as well, and the cheap members are fitted on the others. It looks a little better there than on new rows,
    as the best of its epochs was chosen on them. That may cost coverage, and never the promise: it is made on rows that
    neither trained nor weighed anything (gate.md, section 3).

    Parameters
    ----------
    members : names or blocks of any surrogates, plugins included
    seed : seed of the split that the temperatures are learnt on
    descriptions : what a label means, by label, for members that read it; filled in from the task's `labels`
    source : model and revision for members that name none; filled in from the task's embedder

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
        told = {"descriptions": descriptions, "source": source}
        self.context = {name: value for name, value in told.items() if value}
        self.refit_rows: int | None = None
        self.classes_: Labels = np.empty(0, np.str_)
        self.sharpness_: Floats = np.ones(len(members))
        self.weights_: Floats = np.full(len(members), 1 / len(members))
        # made here: a wrong parameter of a member is an error of the spec, not of the fit
        self.fitted_ = [self._make(member) for member in members]
        self.cost = max(type(self).cost, *(float(getattr(member, "cost", 1.0)) for member in self.fitted_))

    @property
    def resumes(self) -> bool:
        """Whether a member goes on from an earlier one."""
        return any(isinstance(member, Resumable) and member.resumes for member in self.fitted_)

    def resume(self, folder: Path | None, seen: Ints, apart: Ints) -> None:
        """Let members go on from those in the same place of the blend in `folder`."""
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
        logs = np.log(np.maximum(members, _FLOOR))
        return softmax((self.weights_ @ logs.reshape(len(logs), -1)).reshape(logs.shape[1:]))

    def predict_proba(self, inputs: Inputs) -> Vectors:
        """Return probabilities (n, k)."""
        return self.combine(self.predict_members(inputs))

    def save(self, folder: Path) -> None:
        """Write the members beside each other."""
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
        """Return the rows that the pool is learnt on, and those that the cheap members are fitted on for it."""
        held = [member.held_out_ for member in self.fitted_ if isinstance(member, HoldsOut)]
        if held:
            spared = reduce(np.intersect1d, held)
            return spared, np.setdiff1d(np.arange(rows), spared)
        order = np.random.default_rng(self.seed).permutation(rows)
        count = min(rows // 5, _HELD_OUT)
        return np.sort(order[:count]), np.sort(order[count : count + _TRAINED])

    def _learn_pool(self, inputs: Inputs, labels: Labels, y: Ints) -> None:
        equal = np.full(len(self.members), 1 / len(self.members))
        self.sharpness_, self.weights_ = np.ones(len(self.members)), equal
        out, rest = self._split(len(y))
        out = out[np.isin(y[out], y[rest])]  # no temperature can help a label that was never seen
        if len(out) < _FEWEST or len(np.unique(y[rest])) < 2:  # noqa: PLR2004  # nothing to tell apart
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
        calm = [np.log(np.maximum(softmax(s * part), _FLOOR)) for s, part in zip(self.sharpness_, logs, strict=True)]
        self.weights_ = _pool(calm, y[out], equal, _PRIOR_ROWS)

    def _logs(self, member: Surrogate, inputs: Inputs) -> Vectors:
        """Return a member's log probabilities, its classes spread over ours."""
        proba = member.predict_proba(inputs).astype(np.float32, copy=False)
        if len(member.classes_) < len(self.classes_):  # to look labels up takes longer than to predict one row
            known = proba
            proba = np.full((len(inputs), len(self.classes_)), _FLOOR, np.float32)
            proba[:, np.searchsorted(self.classes_, member.classes_)] = known
        logs: Vectors = np.log(np.maximum(proba, _FLOOR))
        return logs


def _pool(logs: list[Vectors], y: Ints, start: Floats, prior_rows: float) -> Floats:
    """Return the weights of log probabilities, each (n, k), that minimise the log loss of their pool (convex in them).

    A ridge pulls them to `start`, as strongly as `prior_rows` rows would.
    """
    from scipy.optimize import minimize  # noqa: PLC0415  # serves the fit only

    stack, rows = np.stack(logs), np.arange(len(y))
    told = stack[:, rows, y].sum(axis=1)

    def loss(weights: Floats) -> tuple[float, Floats]:
        pooled = np.tensordot(weights, stack, 1)
        proba = softmax(pooled)
        distance = weights - start
        value = -np.log(np.maximum(proba[rows, y], 1e-30)).sum() + prior_rows * (distance**2).sum() / 2
        return float(value), np.einsum("nk,mnk->m", proba, stack) - told + prior_rows * distance

    found: Floats = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 10.0)] * len(start)).x
    return found
