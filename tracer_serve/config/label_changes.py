"""`label_changes`: what became of the labels that a task had before."""

from typing import Annotated

from pydantic import Field

from tracer_serve.config.base import Frozen

Name = Annotated[str, Field(min_length=1)]


class LabelChanges(Frozen):
    """Former labels of a task. Stored rows keep them; they are translated whenever rows are read for a refit."""

    rename: dict[Name, Name] = Field(
        default_factory=dict, description="Former label to new label; old rows count as evidence as before."
    )
    merge: dict[Name, tuple[Name, ...]] = Field(
        default_factory=dict, description="New label to the former labels it unites; old rows count as evidence."
    )
    split: dict[Name, tuple[Name, ...]] = Field(
        default_factory=dict,
        description="Former label to the labels that replace it; old rows of the task only train, and of this label"
        " only if it is among them.",
    )

    @property
    def translation(self) -> dict[str, str]:
        """Return the present label of each former label that was renamed or merged.

        Examples
        --------
        >>> LabelChanges(rename={"lost": "gone"}, merge={"fee": ("fee", "cash fee", "gone")}).translation
        {'lost': 'fee', 'cash fee': 'fee', 'gone': 'fee'}
        """
        merged = {old: new for new, several in self.merge.items() for old in several if old != new}
        once = self.rename | merged

        def last(label: str) -> str:
            seen = {label}
            while (label := once.get(label, label)) not in seen:
                seen.add(label)
            return label

        return {old: last(new) for old, new in once.items()}

    @property
    def former(self) -> frozenset[str]:
        """Return the labels that were renamed, merged or split."""
        return frozenset({*self.translation, *self.split})

    def sentences(self) -> tuple[str, ...]:
        """Return each change in words, for the certificate."""
        renamed = [f"{old!r} was renamed to {new!r}" for old, new in self.rename.items()]
        merged = [f"{', '.join(map(repr, several))} became {new!r}" for new, several in self.merge.items()]
        split = [f"{old!r} was split into {', '.join(map(repr, several))}" for old, several in self.split.items()]
        return (*renamed, *merged, *split)
