"""The calls of one prompt: counts, labels, and a bounded sample of texts."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tracer_serve.forms.answer_enum import AnswerEnum, answer_enum
from tracer_serve.forms.calls import Call
from tracer_serve.forms.form import Form
from tracer_serve.forms.slot import CHAIN, FEWEST, Slot

SAMPLE = 2000
"""Texts of a prompt that are kept, drawn uniformly from all its calls."""

LONGEST_LABEL = 100
"""Characters of an answer that may be a label."""

_LABELS = 1000  # distinct labels that are counted
_RECURRING = 0.9  # share of a task's calls whose label came before: the next one is most likely known, too
_LONGEST_TEXT = 20_000  # characters of a text; a longer slot means that it was not found


@dataclass(frozen=True, slots=True)
class Observed:
    """One answered call.

    Parameters
    ----------
    label : the label in its answer; None if the answer is too long or holds none
    at : seconds since 1970
    cost : in the log's currency; 0 if it is not known
    numbers : numeric fields of a JSON answer, such as a confidence
    """

    call: Call
    label: str | None
    at: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Example:
    """A text with its label, as it is kept."""

    text: str
    label: str
    at: float


@dataclass(slots=True)
class Totals:
    """Counts over calls; `first` and `last` are seconds since 1970."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    first: float = 0.0
    last: float = 0.0

    def add(self, seen: Observed) -> None:
        """Count a call."""
        self.first = min(self.first, seen.at) if self.calls else seen.at
        self.last = max(self.last, seen.at)
        self.calls += 1
        self.prompt_tokens += seen.prompt_tokens
        self.completion_tokens += seen.completion_tokens
        self.cost += seen.cost

    def __add__(self, other: "Totals") -> "Totals":
        if not self.calls or not other.calls:
            return replace(self if self.calls else other)  # a copy: both are added to later
        return Totals(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
            min(self.first, other.first),
            max(self.last, other.last),
        )


@dataclass(slots=True)
class PromptGroup:
    """The calls of one prompt.

    Parameters
    ----------
    form : its form, narrowed to the slot
    labels : calls by label, at most `_LABELS` of them
    examples : at most `SAMPLE` texts with their labels
    drawn : calls that the examples were drawn from
    largest : the largest value of each numeric field of the answers
    """

    form: Form
    totals: Totals = field(default_factory=Totals)
    labels: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)
    drawn: int = 0
    largest: dict[str, float] = field(default_factory=dict)

    @property
    def slot(self) -> Slot:
        """The wrapper around the text."""
        return Slot(self.form.around[0], self.form.around[-1])

    @property
    def enum(self) -> AnswerEnum | None:
        """Where the format that callers ask for lists the labels."""
        return answer_enum(self.form.option_values)

    @property
    def label_set(self) -> tuple[str, ...]:
        """The labels: of the enum, else those that came more than once or that the prompt names."""
        enum = self.enum
        if enum is not None:
            return enum.labels
        prompt = "\n".join([*(turn.content for turn in self.form.turns), *self.form.around])
        return tuple(sorted(label for label, calls in self.labels.items() if calls > 1 or label in prompt))

    @property
    def is_task(self) -> bool:
        """Whether it is a classification: few labels that recur, for many different texts that are found."""
        recur = [calls for calls in self.labels.values() if calls > 1]
        texts = {example.text for example in self.examples}
        middle = sorted(map(len, texts))[len(texts) // 2] if texts else 0
        few = self.enum is not None or sum(recur) >= _RECURRING * self.labels.total()
        return few and len(recur) > 1 and len(texts) >= FEWEST and middle <= _LONGEST_TEXT and instructs(self.form)

    def add(self, text: str, label: str, seen: Observed, chance: random.Random) -> None:
        """Count a call and perhaps keep its text."""
        self.totals.add(seen)
        for name, number in seen.numbers.items():
            self.largest[name] = max(number, self.largest.get(name, number))
        if label in self.labels or len(self.labels) < _LABELS:
            self.labels[label] += 1
        self.drawn += 1
        place = len(self.examples) if len(self.examples) < SAMPLE else chance.randrange(self.drawn)
        if place < SAMPLE:
            self.examples[place : place + 1] = [Example(text, label, seen.at)]


def instructs(form: Form) -> bool:
    """Return whether a form asks anything: a prompt around the text, a system message, examples, or an enum."""
    return (
        len(form.around[0]) + len(form.around[-1]) >= CHAIN or bool(form.turns) or bool(answer_enum(form.option_values))
    )


def move_share(whole: PromptGroup, part: PromptGroup) -> None:
    """Move the counts of a part out of a group, by its share of the examples."""
    share = len(part.examples) / max(1, len(part.examples) + len(whole.examples))
    for name in ("calls", "prompt_tokens", "completion_tokens"):
        moved = round(getattr(whole.totals, name) * share)
        setattr(part.totals, name, moved)
        setattr(whole.totals, name, getattr(whole.totals, name) - moved)
    part.totals.cost = whole.totals.cost * share
    whole.totals.cost -= part.totals.cost
    part.totals.first, part.totals.last = whole.totals.first, whole.totals.last
    part.largest = dict(whole.largest)
    for group in (part, whole):
        group.labels = Counter(example.label for example in group.examples)
        group.drawn = group.totals.calls
