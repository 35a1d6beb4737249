"""Tasks found in LLM traffic: what each costs a day, and how much of it a surrogate would handle."""

import math
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tracer_serve.components.factory import make_embedders
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.errors import FitError
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.progress import Progress, silent
from tracer_serve.forms.answer_enum import answer_properties
from tracer_serve.forms.prompt_group import PromptGroup
from tracer_serve.report.scan import Scan, scan

_DAY_S = 86_400.0
_CHARACTERS_PER_TOKEN = 4.0
_WORDS = re.compile(r"[A-Za-z][A-Za-z0-9]+")
_PLAIN_NAMES = frozenset({"label", "category", "class", "classification", "answer", "result", "output", "type"})
_NAME_WORDS = 3
_PERCENT = 1.0  # a confidence above this is stated in percent
_CONFIDENCE = ("confidence", "score", "probability", "certainty")


@dataclass(frozen=True, slots=True)
class Prices:
    """What the LLM's tokens cost, in one currency; None if it is not known."""

    prompt_per_1m: float | None = None
    completion_per_1m: float | None = None


@dataclass(frozen=True, slots=True)
class FoundTask:
    """A classification task found in traffic.

    Parameters
    ----------
    name : made from its answer's schema, else from its prompt; unique among the tasks found
    days : that its calls span, at least one hour
    tokens_a_day : prompt and completion tokens; estimated at four characters each where the log has none
    cost_a_day : None if neither the log nor the prices say it
    projection : what would be handled at which agreement; None if it was not asked for, or there are too few texts
    """

    name: str
    group: PromptGroup
    days: float
    tokens_a_day: float
    cost_a_day: float | None
    projection: Scan | None = None

    @property
    def calls_a_day(self) -> float:
        """Calls a day."""
        return self.group.totals.calls / self.days

    @property
    def prompt_tokens(self) -> float:
        """Prompt tokens of a call, on average."""
        return prompt_tokens_of(self.group)

    @property
    def when_handled(self) -> dict[str, str]:
        """What a handled answer says in numeric fields that state a confidence: the surrogate's score."""
        return {
            name: "percent" if number > _PERCENT else "score"
            for name, number in self.group.largest.items()
            if any(word in name.casefold() for word in _CONFIDENCE)
        }

    @property
    def also_asked(self) -> tuple[str, ...]:
        """Properties of the callers' schema that neither the label nor `when_handled` fills.

        Without an enum it is not known which one is the label; then all are given, if there are several.
        """
        properties = answer_properties(self.group.form.option_values)
        label = self.group.enum.path[:1] if self.group.enum is not None else ()
        rest = tuple(name for name in properties if name not in self.when_handled and name not in label)
        return rest if label or len(rest) > 1 else ()

    def coverage(self, alpha: float) -> float | None:
        """Return the share of the calls that would be handled at an agreement; None if it is not known."""
        points = self.projection.points if self.projection is not None else ()
        return next((point.coverage for point in points if math.isclose(point.alpha, alpha)), None)


def found_tasks(groups: Iterable[PromptGroup], prices: Prices | None = None) -> list[FoundTask]:
    """Return the tasks among the groups, each with a name and its cost, the most calls first."""
    found, names = list[FoundTask](), set[str]()
    for group in groups:
        if group.is_task:
            name = next(name for name in _names(group) if name not in names)
            names.add(name)
            found.append(_priced(name, group, prices or Prices()))
    return found


def project(task: FoundTask, alpha: float, progress: Progress = silent) -> Scan | None:
    """Cross-fit a surrogate on a task's texts and certify it at `alpha`; None if there are too few texts."""
    examples = task.group.examples
    spec = Spec.model_validate({"name": task.name, "teacher": {"type": "offline", "file": "none"}})
    bare = Task(spec, Path(f"{task.name}.yaml"), "")
    rows = Rows.of([example.text for example in examples], [example.label for example in examples])
    with tempfile.TemporaryDirectory(prefix="tracer-serve-discover-") as cache:
        try:
            return scan(bare, rows, make_embedders(bare, Path(cache)), progress, alphas=(alpha,))
        except FitError:
            return None


def prompt_tokens_of(group: PromptGroup) -> float:
    """Return the prompt tokens of a call on average, estimated from its length where the log has none."""
    totals = group.totals
    if totals.prompt_tokens:
        return totals.prompt_tokens / totals.calls
    fixed = len(group.slot) + sum(len(turn.content) for turn in group.form.turns)
    texts = sum(len(example.text) for example in group.examples) / max(1, len(group.examples))
    return (fixed + texts) / _CHARACTERS_PER_TOKEN


def _priced(name: str, group: PromptGroup, prices: Prices) -> FoundTask:
    totals = group.totals
    days = max(totals.last - totals.first, 3600.0) / _DAY_S
    prompt, completion = prompt_tokens_of(group) * totals.calls, float(totals.completion_tokens)
    cost = totals.cost or None
    if prices.prompt_per_1m is not None:
        cost = (prompt * prices.prompt_per_1m + completion * (prices.completion_per_1m or 0.0)) / 1e6
    return FoundTask(name, group, days, (prompt + completion) / days, None if cost is None else cost / days)


def _names(group: PromptGroup) -> Iterator[str]:
    """Yield names for a task: a telling field of its schema, the last words of its prompt, then numbered ones."""
    enum = group.enum
    words = [enum.path[-1]] if enum is not None and enum.path and enum.path[-1].casefold() not in _PLAIN_NAMES else []
    if not words:
        said = " ".join([*group.form.system, group.slot.prefix, group.slot.suffix])
        words = [word for word in _WORDS.findall(said) if len(word) > _NAME_WORDS][:_NAME_WORDS]
    name = re.sub(r"[^a-z0-9]+", "-", "-".join(words).casefold()).strip("-")[:40] or "task"
    yield name
    yield from (f"{name}-{number}" for number in range(2, 10_000))
