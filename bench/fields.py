"""Coverage of a task with several fields, compared with a separate task per field.

    python -m bench.fields --traces 3000
    python -m bench.fields --world tags --embedder sentence_transformers

Banking77, gold labels, official test part. No LLM gave these answers, so they have no noise beyond that of the labels;
what is measured is how fields combine. Two worlds, whose rules this module holds:

``three`` : `intent`, one of the 77 labels. `group`, one of nine, by the first key word that the intent's name has.
    `urgent`, where the intent says that a card is lost or blocked, or the text asks for haste or names a theft.
    So `group` follows from the intent, and `urgent` from both the intent and the words.
``tags`` : eight tags of one field, seven by words in the intent's name and one by the text; none, one or several fit.

The separate tasks have one field each, at the same alpha. Their joint coverage is what all of them handle: the product
would be right if they deferred independently. What all of them handle may agree in all fields less often than alpha.
"""

import argparse
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from bench.data import Given, Part, load, read
from bench.shown import show
from tracer_serve.cli.console import progress_bar
from tracer_serve.components.factory import make_embedder
from tracer_serve.config.fields import canonical
from tracer_serve.config.load import Task
from tracer_serve.config.task import Spec
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.fit.progress import Progress
from tracer_serve.types import Bools, Labels, Text

GROUPS = ("transfer", "top_up", "cash", "exchange", "verify", "pin", "payment", "card")
_URGENT = re.compile(r"compromised|lost_or_stolen|not_recognised|swallowed|blocked")
_HASTE = re.compile(
    r"\b(urgent\w*|asap|immediate\w*|right (now|away)|stole\w*|thief|fraud\w*|hack\w*|emergency)\b", re.IGNORECASE
)
TAGS = {
    "card": re.compile(r"card"),
    "transfer": re.compile(r"transfer|bank_"),
    "cash": re.compile(r"cash|atm"),
    "top_up": re.compile(r"top"),
    "fee": re.compile(r"charge|fee|rate"),
    "failed": re.compile(r"fail|declin|not_work|revert|block|not_allowed|unable"),
    "waiting": re.compile(r"pending|arrival|estimate|timing|not_received|not_updated|not_showing"),
}
"""Words in an intent's name; the tag ``abroad`` goes by words in the text."""
_ABROAD = re.compile(r"abroad|foreign|countr|overseas|travel|vacation|holiday|currenc|europe|\bUS\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """One task on one world.

    Parameters
    ----------
    answer : the fields that it answers
    certified : coverage that the certificate states; of ``separate tasks`` the product of theirs
    coverage, agreement : on the test part; no agreement where nothing is handled
    lower_bound : of agreement, as certified
    classes, unseen : answers that training rows have, and share of the test rows with another one
    cpu_s : of the fit
    """

    world: str
    answer: str
    embedder: str
    surrogate: str
    alpha: float
    traces: int
    certified: float
    coverage: float
    agreement: float | None
    lower_bound: float | None
    classes: int
    unseen: float
    cpu_s: float


def three(text: Text, intent: str) -> dict[str, Any]:
    """Return the answer in the world ``three``."""
    group = next((group for group in GROUPS if group in intent), "other")
    return {"intent": intent, "group": group, "urgent": bool(_URGENT.search(intent) or _HASTE.search(str(text)))}


def tags(text: Text, intent: str) -> dict[str, Any]:
    """Return the answer in the world ``tags``."""
    found = [tag for tag, words in TAGS.items() if words.search(intent)]
    return {"tags": sorted([*found, *(["abroad"] if _ABROAD.search(str(text)) else [])])}


WORLDS = {"three": three, "tags": tags}


def fields_of(answers: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the block of the YAML that fits some answers."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in answers[0].items():
        if isinstance(value, bool):
            found[name] = {"type": "boolean"}
        elif isinstance(value, list):
            found[name] = {"type": "tags", "labels": [*TAGS, "abroad"]}
        else:
            found[name] = {"labels": sorted({answer[name] for answer in answers})}
    return found


@dataclass(frozen=True, slots=True)
class World:
    """Traces and test rows of a world, with the answers to both."""

    name: str
    traces: Part
    test: Part
    traced: list[dict[str, Any]]
    tested: list[dict[str, Any]]

    def labels(self, names: Sequence[str]) -> tuple[Labels, Labels]:
        """Return the labels of both parts, of some fields alone."""
        both = [[canonical({n: one[n] for n in names}) for one in part] for part in (self.traced, self.tested)]
        return np.array(both[0]), np.array(both[1])


def read_world(name: str, rows: int, *, embedded: bool, progress: Progress) -> World:
    """Draw traces from the training part, and take the whole test part."""
    if embedded:
        data = load("banking77", lambda done, total: progress("embedding", done, total))
        train, test = data.train, data.test
    else:
        empty = np.empty((0, 0), np.float32)
        train, test = (Part(*read("banking77", part), empty) for part in ("train", "test"))
    order = np.random.default_rng(0).permutation(len(train))[:rows]
    texts = [train.texts[i] for i in order]
    traces = Part(texts, train.labels[order], train.vectors[order] if embedded else train.vectors)
    traced, tested = ([WORLDS[name](t, str(y)) for t, y in zip(p.texts, p.labels, strict=True)] for p in (traces, test))
    return World(name, traces, test, traced, tested)


def fitted(
    world: World, names: Sequence[str], options: argparse.Namespace, progress: Progress
) -> tuple[Row, Bools, Bools]:
    """Fit one task that answers some of the fields; return its row, and which test rows it handles and agrees on."""
    declared = fields_of(world.traced)
    spec: dict[str, Any] = {
        "name": "bench",
        "teacher": "offline",
        "embedder": options.embedder,
        "surrogates": [options.surrogate],
        "fields": {name: declared[name] for name in names},
        "gate": {"alpha": options.alpha, "min_coverage": 0.0},
        "fit": {"folds": options.folds},
    }
    task = Task(Spec.model_validate(spec), Path("bench"), "")
    embedded = len(world.traces.vectors) > 0
    embedder = Given(world.traces, world.test) if embedded else make_embedder(task)
    labels, truth = world.labels(names)
    began = time.process_time()
    policy = fit_policy(task, Rows.of(world.traces.texts, labels), embedder, progress).policy
    took = time.process_time() - began
    seen, found = policy.score(world.test.texts), policy.certificate
    right, handled = policy.classes[seen.top] == truth, seen.handled
    row = Row(
        world=world.name,
        answer=", ".join(names),
        embedder=options.embedder,
        surrogate=options.surrogate,
        alpha=options.alpha,
        traces=len(labels),
        certified=found.handled_share,
        coverage=float(handled.mean()),
        agreement=float(right[handled].mean()) if handled.any() else None,
        lower_bound=found.lower_bound if found.certified else None,
        classes=len(policy.classes),
        unseen=float((~np.isin(truth, policy.classes)).mean()),
        cpu_s=took,
    )
    return row, handled, right


def compare(options: argparse.Namespace, progress: Progress) -> list[Row]:
    """Fit the whole answer, then each field alone; the last row is what the separate tasks handle together."""
    embedded = options.embedder != "ngrams"
    world = read_world(options.world, options.traces, embedded=embedded, progress=progress)
    names = list(world.traced[0])
    whole, _, _ = fitted(world, names, options, progress)
    if len(names) == 1 or options.whole:
        return [whole]
    alone = [fitted(world, [name], options, progress) for name in names]
    handled = np.all([one for _, one, _ in alone], axis=0)
    right = np.all([one for _, _, one in alone], axis=0)
    together = {
        **asdict(whole),
        "answer": "separate tasks",
        "certified": float(np.prod([row.certified for row, _, _ in alone])),
        "coverage": float(handled.mean()),
        "agreement": float(right[handled].mean()) if handled.any() else None,
        "lower_bound": None,
        "classes": 0,
        "unseen": 0.0,
        "cpu_s": sum(row.cpu_s for row, _, _ in alone),
    }
    return [whole, *(row for row, _, _ in alone), Row(**together)]


def table(rows: Sequence[Row]) -> Table:
    """Return a line per task."""
    shown = Table("answer", "certified", "coverage", "agreement", "lower bound", "answers", "unseen", "CPU s")
    for row in rows:
        agree = ["-" if share is None else f"{share:.2%}" for share in (row.agreement, row.lower_bound)]
        cells = [f"{row.certified:.1%}", f"{row.coverage:.1%}", *agree, f"{row.classes}", f"{row.unseen:.1%}"]
        shown.add_row(row.answer, *cells, f"{row.cpu_s:.0f}")
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.fields", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--world", choices=WORLDS, default="three")
    parser.add_argument("--traces", type=int, default=10_003)
    parser.add_argument("--alpha", type=float, default=0.95)
    parser.add_argument("--embedder", choices=("ngrams", "sentence_transformers"), default="ngrams")
    parser.add_argument("--surrogate", default="blend")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--whole", action="store_true", help="no separate tasks beside it")
    parser.add_argument("--json", action="store_true", help="flat rows, nothing else on standard output")
    options = parser.parse_args(arguments)
    with progress_bar(quiet=options.json) as progress:
        rows = compare(options, progress)
    show(rows, table(rows), as_json=options.json)


if __name__ == "__main__":
    main()
