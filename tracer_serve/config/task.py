"""One task: the top level of the YAML."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from tracer_serve.config.base import Component, Frozen, Share, SurrogateComponent
from tracer_serve.config.compute import ComputeSpec
from tracer_serve.config.fields import AnswerFields, FieldSpec
from tracer_serve.config.fit import FitSpec
from tracer_serve.config.forms import OWN, FormSpec
from tracer_serve.config.gate import GateSpec
from tracer_serve.config.label_changes import LabelChanges
from tracer_serve.config.report import ReportSpec
from tracer_serve.config.schedule import ScheduleSpec
from tracer_serve.config.server import ServerSpec
from tracer_serve.config.traces import TracesSpec
from tracer_serve.config.versions import VersionsSpec

PASS_THROUGH = "pass_through"  # noqa: S105  not a key
"""Value of `teacher.api_key` that forwards each caller's own key."""


class Spec(Frozen):
    """One classification task."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Name of the task: model name, metrics label, state folder."
    )
    labels: tuple[str, ...] | dict[str, str] | None = Field(
        default=None,
        description="Closed label set, or a map of label to description; default: labels used by the teacher.",
    )
    label_changes: LabelChanges = Field(
        default_factory=LabelChanges, description="Former names of the labels, so that old rows stay evidence."
    )
    fields: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$")], FieldSpec] | None = Field(
        default=None,
        description="Instead of labels: several answers in one call, by name, handled and certified as a whole"
        " (choice, boolean and tags).",
    )
    input: Literal["text", "pair", "conversation"] = Field(
        default="text",
        description="One text, a pair of texts, or a conversation: the last `turns` turns of a chat call are the text.",
    )
    turns: int = Field(default=6, ge=1, le=100, description="Turns of a conversation that are classified.")
    plugins: tuple[Path, ...] = Field(default=(), description="Python files that register your own components.")
    embedder: Component = Field(default=Component(type="ngrams"), description="Computes vectors of texts.")
    surrogates: tuple[SurrogateComponent, ...] = Field(
        default=(SurrogateComponent(type="blend"),),
        min_length=1,
        validate_default=True,
        description="Candidate surrogates.",
    )
    acceptors: tuple[Component, ...] = Field(
        default=(Component(type="logistic"),), min_length=1, description="Candidate acceptors."
    )
    gate: GateSpec = Field(default_factory=GateSpec, description="The promise.")
    fit: FitSpec = Field(default_factory=FitSpec, description="How to fit.")
    teacher: Component = Field(description="The endpoint whose labels are the reference.")
    forms: tuple[FormSpec, ...] = Field(default=(), description="Further prompts whose calls belong to the task.")
    traces: TracesSpec = Field(default_factory=TracesSpec, description="The trace store.")
    schedule: ScheduleSpec = Field(default_factory=ScheduleSpec, description="When to refit.")
    versions: VersionsSpec = Field(
        default_factory=VersionsSpec, description="Where versions are stored, and how many are kept."
    )
    report: ReportSpec = Field(default_factory=ReportSpec, description="What a version's report shows.")
    compute: ComputeSpec = Field(default_factory=ComputeSpec, description="Where to fit.")
    state: Path | None = Field(
        default=None,
        description="Folder of store, versions and caches, relative to the working folder; default .tracer/NAME.",
    )
    mode: Literal["observe", "canary", "enforce"] = Field(
        default="enforce",
        description="observe: the teacher answers everything, the surrogate is scored in shadow. canary: certified"
        " answers for a share of the users. enforce: for all.",
    )
    canary: Share = Field(
        default=0.1, description="Share of users in mode canary, by a hash of `user`; of requests without `user`."
    )
    on_teacher_down: Literal["error", "degraded"] = Field(
        default="error",
        description="If not certified: error (503), or degraded (the surrogate answers, uncertified and marked so).",
    )
    server: ServerSpec = Field(default_factory=ServerSpec, description="Where to listen.")

    @field_validator("server")
    @classmethod
    def _keys_of_one_kind(cls, value: ServerSpec, info: ValidationInfo) -> ServerSpec:
        teacher = info.data.get("teacher")
        if value.api_keys and teacher is not None and teacher.params.get("api_key") == PASS_THROUGH:
            raise ValueError(
                "teacher.api_key: pass_through sends the callers' keys to the teacher, but with api_keys these are keys"
                " of this server, which must not leave it; use one of the two"
            )
        return value

    @field_validator("labels")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | dict[str, str] | None) -> tuple[str, ...] | dict[str, str] | None:
        if value is None:
            return None
        if len(value) < 1 or any(not label.strip() for label in value):
            raise ValueError("needs at least one label, none of them empty")
        if len(set(value)) < len(value):
            twice = next(label for label in value if list(value).count(label) > 1)
            raise ValueError(f"label {twice!r} is listed twice")
        return value

    @field_validator("label_changes")
    @classmethod
    def _changed_labels(cls, value: LabelChanges, info: ValidationInfo) -> LabelChanges:
        labels = info.data.get("labels") or ()
        if value.former and not labels:
            raise ValueError("needs `labels`, the present set, beside it")
        targets = {*value.translation.values(), *(label for several in value.split.values() for label in several)}
        if unknown := sorted(targets - {*labels}):
            raise ValueError(f"{unknown[0]!r} is not among labels: {', '.join(labels)}")
        if still := sorted({*value.translation} & {*labels}):
            raise ValueError(f"{still[0]!r} was renamed or merged, and is still among labels")
        return value

    @field_validator("fields")
    @classmethod
    def _answers(cls, value: dict[str, FieldSpec] | None, info: ValidationInfo) -> dict[str, FieldSpec] | None:
        if value is None:
            return None
        if info.data.get("labels"):
            raise ValueError("labels is the short form of one field; give either labels or fields")
        if not any(spec.certified for spec in value.values()):
            raise ValueError("needs at least one field of type choice, boolean or tags")
        return value

    @field_validator("surrogates")
    @classmethod
    def _one_per_field(
        cls, value: tuple[SurrogateComponent, ...], info: ValidationInfo
    ) -> tuple[SurrogateComponent, ...]:
        return tuple(one.per_field for one in value) if info.data.get("fields") else value

    @field_validator("gate")
    @classmethod
    def _whole_answers(cls, value: GateSpec, info: ValidationInfo) -> GateSpec:
        if info.data.get("fields") and (value.protect or value.per_class or value.class_floor):
            raise ValueError("protect, per_class and class_floor speak of single labels; with fields, leave them out")
        return value

    @field_validator("gate")
    @classmethod
    def _protects_labels(cls, value: GateSpec, info: ValidationInfo) -> GateSpec:
        known = info.data.get("labels")
        if known and (unknown := [label for label in value.protect if label not in known]):
            raise ValueError(f"protect names {unknown[0]!r}, which is not among labels: {', '.join(known)}")
        return value

    @field_validator("forms")
    @classmethod
    def _known_forms(cls, value: tuple[FormSpec, ...]) -> tuple[FormSpec, ...]:
        names = [form.name for form in value]
        if len(set(names)) < len(names):
            raise ValueError("two forms have the same name")
        for i, form in enumerate(value):
            earlier = (*OWN, *names[:i])
            if form.same_as is not None and form.same_as not in earlier:
                raise ValueError(
                    f"same_as of {form.name!r} has to name teacher or a form above it, not {form.same_as!r}"
                )
        return value

    @property
    def embedders(self) -> tuple[Component, ...]:
        """Return the task's embedder, then the distinct embedders of single surrogates."""
        found = [self.embedder]
        for surrogate in self.surrogates:
            if surrogate.embedder is not None and surrogate.embedder not in found:
                found.append(surrogate.embedder)
        return tuple(found)

    def view_of(self, surrogate: int) -> int:
        """Return the index in `embedders` of the `surrogate`-th surrogate's embedder."""
        own = self.surrogates[surrogate].embedder
        return 0 if own is None else self.embedders.index(own)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Return the closed label set, empty for an open task."""
        return tuple(self.labels or ())

    @property
    def readable_labels(self) -> tuple[str, ...]:
        """Return the closed label set with what was renamed or merged, as in old files; empty for an open task."""
        return tuple(dict.fromkeys((*self.label_names, *self.label_changes.translation)))

    @property
    def answer_fields(self) -> AnswerFields | None:
        """Return the fields of the answer; None if it is one label."""
        return AnswerFields(self.fields) if self.fields else None
