"""Ten days of Banking77 traffic: does coverage keep up, and does a system notice that its teacher has changed its mind?

    python -m bench.flywheel --json flywheel.jsonl --plot docs/flywheel.svg

2,000 starting traces, then 1,000 calls a day and a refit each night, alpha .95. Gold labels play the teacher; in the
second world it swaps eight intents from day 6 on. Arms: tracer-llm, which refits on labels of what it defers, without
its candidate gbt, as its configuration advises for many classes; tracer-serve without audits; tracer-serve; and
tracer-serve with every label for nothing, which nobody has. What decides is the product's own code: policy, audit rate,
store, snapshot, fit, certificate, monitor, closing. HTTP and time are left out.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.data import Dataset, Given, Part, load
from bench.flywheel_plot import draw
from bench.peer import run_in_peer
from tracer_serve.audit_rate import Traffic, rate_in_force
from tracer_serve.errors import FitError
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.gate.bounds import n_min
from tracer_serve.gate.monitor import MonitorState, update
from tracer_serve.load import Task
from tracer_serve.policy import Policy
from tracer_serve.records import Bools, Labels, Trace
from tracer_serve.snapshot import take_snapshot
from tracer_serve.spec import Spec
from tracer_serve.standing import TeacherSince, close_gate, closing_of
from tracer_serve.traces import TraceStore, new_id, open_store
from tracer_serve.watch import monitored

ALPHA, DAYS, START, CALLS = 0.95, 10, 2_000, 1_000
DRIFT_DAY, SWAPPED = 6, 8
_CHUNK = 50  # calls between two looks at the monitor
_TEACHER = TeacherSince("gold")

_PEER = """
import json, tempfile
from pathlib import Path
import numpy as np
import tracer.api as api
from tracer.config import FitConfig

def main(a):
    folder, x, start, calls = Path(tempfile.mkdtemp()), a["vectors"], a["start"], a["calls"]
    artifact = folder / "artifacts"
    def write(rows, labels):
        lines = [json.dumps({"input": a["texts"][i], "teacher": labels[i]}) for i in rows]
        (folder / "traces.jsonl").write_text("\\n".join(lines) + "\\n")
        return folder / "traces.jsonl"
    target = a["alpha"]
    config = lambda: FitConfig(target, frontier_targets=(target,), skip_candidates=("gbt",), verbose=False)
    manifest = api.fit(write(range(start), a["labels"][0]), artifact, embeddings=x[:start], config=config()).manifest
    out = {"reported": []}
    for day in range(a["days"]):
        out["reported"].append(manifest.teacher_agreement_cal)
        given = np.full(len(x), "", dtype="<U64")
        try:
            given[:] = [label or "" for label in api.load_router(artifact).predict_batch(x)["labels"]]
        except FileNotFoundError:
            pass  # its gate deployed nothing: all is deferred
        out[f"given_{day}"] = given
        rows = np.arange(start + day * calls, start + (day + 1) * calls)
        rows = rows[given[rows] == ""]
        if len(rows):
            path = write(rows, a["labels"][day])
            manifest = api.update(path, artifact, new_embeddings=x[rows], config=config()).manifest
    return out
"""


@dataclass(frozen=True, slots=True)
class World:
    """Banking77 in one random order: the starting traces, the days, and rows that nobody ever sees.

    Parameters
    ----------
    labels : what the teacher says of every row, on each day
    """

    name: str
    pool: Part
    labels: tuple[Labels, ...]

    def day(self, number: int) -> slice:
        """Return the rows that come on a day, counted from 1."""
        return slice(START + (number - 1) * CALLS, START + number * CALLS)


@dataclass(frozen=True, slots=True)
class Day:
    """What one arm did on one day.

    Parameters
    ----------
    coverage : share of the day's calls that was handled
    saved : share of the day's calls that cost no teacher call, net of audits
    true : agreement of the morning's policy on what it handles of all rows that it has never seen; None: nothing
    lived : agreement of what was really handled on this day
    reported : what the system itself says in the morning
    audits : asked on this day
    alarm_after : audits of the version at the alarm, where there was one on this day
    reopened : calls of this day until the gate was opened again
    """

    world: str
    arm: str
    day: int
    coverage: float
    saved: float
    true: float | None
    lived: float | None
    reported: float | None
    audits: int = 0
    alarm_after: int | None = None
    reopened: int | None = None


def worlds(data: Dataset, seed: int) -> list[World]:
    """Return the calm world, and the one with drift."""
    order = np.random.default_rng(seed).permutation(len(data.train) + len(data.test))
    texts = [*data.train.texts, *data.test.texts]
    labels = np.concatenate([data.train.labels, data.test.labels])[order]
    vectors = np.concatenate([data.train.vectors, data.test.vectors])[order]
    names, counts = np.unique(labels, return_counts=True)
    often = names[np.argsort(-counts, kind="stable")[:SWAPPED]]
    moved = labels.copy()
    for old, new in zip(often, np.roll(often, 1), strict=True):
        moved[labels == old] = new
    pool = Part([texts[i] for i in order], labels, vectors)
    drift = tuple(moved if day >= DRIFT_DAY else labels for day in range(1, DAYS + 1))
    return [World("calm", pool, (labels,) * DAYS), World("drift", pool, drift)]


@dataclass(slots=True)
class Arm:
    """tracer-serve in one world.

    Parameters
    ----------
    name : of the arm
    audited : whether handled calls are audited, at ``audit_rate: auto``
    everything : whether every call is labelled for nothing
    """

    name: str
    world: World
    task: Task
    store: TraceStore
    rng: random.Random
    audited: bool = True
    everything: bool = False
    policy: Policy | None = None
    version: int = 0
    after: str = ""
    monitor: MonitorState | None = None
    tried: float = 0.0
    found: list[Day] = field(default_factory=list)

    def run(self) -> list[Day]:
        """Live through all days."""
        label = self.world.labels[0]
        self.store.add(self._trace(i, label, decision=None) for i in range(START))
        self.refit()
        for number in range(1, DAYS + 1):
            self.found.append(self.live(number))
            self.refit()
        return self.found

    @property
    def closed(self) -> bool:
        """Whether the gate is closed."""
        closing = closing_of(self.store)
        return closing is not None and self.after < closing.after

    def refit(self) -> None:
        """Refit as the product does: a version that does not certify never replaces one that does."""
        closing = closing_of(self.store)
        after = closing.after if closing else ""
        try:
            taken = take_snapshot(self.store, _TEACHER, closed=after)
            fitted = fit_policy(self.task, taken.rows, Given(self.world.pool), index=self.version + 1)
        except FitError:
            return
        self.version += 1
        if fitted.certificate.certified or self.policy is None:
            self.policy, self.after = fitted.policy, taken.after
            certificate = fitted.certificate
            self.monitor = MonitorState(alpha=monitored(certificate), delta=certificate.delta)

    def live(self, number: int) -> Day:
        """Live through one day, in chunks, between which gate, rate and version may change."""
        assert self.policy is not None
        morning = self.policy
        reported = _measured(morning)
        true = None if self.closed else self._true(morning, number)
        rows, label = self.world.day(number), self.world.labels[number - 1]
        handled_rows = audits = right = 0
        alarm_after = reopened = None
        for start in range(rows.start, rows.stop, _CHUNK):
            was_closed = self.closed
            handled, agree, asked = self._chunk(range(start, start + _CHUNK), label)
            handled_rows, right, audits = handled_rows + handled, right + agree, audits + asked
            if not was_closed and self.monitor is not None and self.monitor.alarm:
                alarm_after, self.tried = self.monitor.alarmed_at, 0.0
                close_gate(self.store, self.version, self.monitor.seen, self.monitor.agreements, self.monitor.evidence)
            elif was_closed and self._repair_due():
                self.refit()
                reopened = None if self.closed else start + _CHUNK - rows.start
        return Day(
            world=self.world.name,
            arm=self.name,
            day=number,
            coverage=handled_rows / CALLS,
            saved=(handled_rows - audits) / CALLS,
            true=true,
            lived=right / handled_rows if handled_rows else None,
            reported=reported,
            audits=audits,
            alarm_after=alarm_after,
            reopened=reopened,
        )

    def _chunk(self, rows: range, label: Labels) -> tuple[int, int, int]:
        """Decide some calls; return how many were handled, how many of those agree, and how many were audited."""
        policy = self.policy
        assert policy is not None
        certificate, closed = policy.certificate, self.closed
        given, accepts = _decide(policy, self.world.pool.take(np.arange(rows.start, rows.stop)))
        rate = 1.0
        if certificate.certified and not closed and not self.everything:
            boosted = self.monitor is not None and self.monitor.seen > 0 and self.monitor.boosted
            traffic = Traffic(handled_per_day=certificate.coverage * CALLS)
            wanted = "auto" if self.audited else 0.0
            rate = rate_in_force(wanted, traffic, datetime.now(UTC), boosted=boosted)
        made, handled, right, audits = [], 0, 0, 0
        for i, answer, accept in zip(rows, given, accepts, strict=True):
            if not accept or closed:
                made.append(self._trace(i, label, decision="deferred", rate=rate))
                continue
            agree = bool(answer == label[i])
            handled, right = handled + 1, right + agree
            u = self.rng.random()
            if self.everything:
                made.append(self._trace(i, label, decision="deferred", rate=1.0))
            elif u < rate:
                audits += 1
                made.append(self._trace(i, label, decision="handled", rate=rate, u=u))
                if self.monitor is not None:
                    self.monitor = update(self.monitor, agree)
        self.store.add(made)
        return handled, right, audits

    def _repair_due(self) -> bool:
        """Say whether the schedule would try to open the gate: at four times the least, then ever more."""
        closing = closing_of(self.store)
        rows = self.store.labelled_since(closing.after if closing else "")
        if rows < max(4.0 * n_min(ALPHA, self.task.spec.gate.delta), 1.5 * self.tried):
            return False
        self.tried = rows
        return True

    def _true(self, policy: Policy, number: int) -> float | None:
        """Return the agreement on everything that comes from this day on, by what the teacher says today."""
        unseen = np.arange(self.world.day(number).start, len(self.world.pool))
        given, accepts = _decide(policy, self.world.pool.take(unseen))
        return _agreement(given, accepts, self.world.labels[number - 1][unseen])

    def _trace(self, i: int, label: Labels, *, decision: Any, rate: float = 1.0, u: float | None = None) -> Trace:
        source = {"handled": "audit", "deferred": "teacher"}.get(decision, "import")
        return Trace(
            id=new_id(),
            ts=datetime.now(UTC),
            task="bench",
            input=self.world.pool.texts[i],
            teacher_label=str(label[i]),
            label_source=source,  # type: ignore[arg-type]
            decision=decision,
            version=self.version or None,
            audit_rate=rate,
            u=self.rng.random() if u is None else u,
            teacher_fingerprint=_TEACHER.fingerprint,
        )


def peer(world: World) -> list[Day]:
    """Run tracer-llm through the days: it refits each night on what it had deferred."""
    arrays = {"vectors": world.pool.vectors, "texts": list(world.pool.texts), "start": START, "calls": CALLS}
    labels = [label.tolist() for label in world.labels]
    found = run_in_peer(_PEER, arrays | {"labels": labels, "days": DAYS, "alpha": ALPHA})
    days = []
    for number in range(1, DAYS + 1):
        given, label, rows = found[f"given_{number - 1}"], world.labels[number - 1], world.day(number)
        accepts = given != ""
        coverage = float(accepts[rows].mean())
        days.append(
            Day(
                world=world.name,
                arm="tracer-llm",
                day=number,
                coverage=coverage,
                saved=coverage,
                true=_agreement(given[rows.start :], accepts[rows.start :], label[rows.start :]),
                lived=_agreement(given[rows], accepts[rows], label[rows]),
                reported=found["reported"][number - 1],
            )
        )
    return days


def _decide(policy: Policy, part: Part) -> tuple[Labels, Bools]:
    seen = policy.score(part.texts, part.vectors)
    return policy.classes[seen.top], seen.handled


def _agreement(given: Labels, handled: Bools, truth: Labels) -> float | None:
    return float((given == truth)[handled].mean()) if handled.any() else None


def _measured(policy: Policy) -> float | None:
    found = policy.certificate
    return found.agreements / found.n if found.certified else None


def arms(world: World, seed: int, folder: Path) -> Iterator[Callable[[], list[Day]]]:
    """Yield the arms, each ready to run."""
    required = {"name": "bench", "teacher": "offline", "surrogates": ["blend"], "acceptors": ["logistic"]}
    task = Task(Spec.model_validate(required | {"gate": {"alpha": ALPHA}}), Path("bench"), "")
    kinds = {"no audits": (False, False), "tracer-serve": (True, False)}
    if world.name == "calm":
        kinds["all labels"] = (False, True)
    for name, (audited, everything) in kinds.items():
        store = open_store(folder / f"{world.name}-{name}.db".replace(" ", "-"), "bench")
        yield Arm(name, world, task, store, random.Random(seed), audited, everything).run
    yield lambda: peer(world)


def show(days: list[Day]) -> None:
    """Print a table per world."""
    for world in dict.fromkeys(day.world for day in days):
        table = Table(
            "arm", "day", "coverage", "saved net", "true", "lived", "reported", "audits", "alarm", title=world
        )
        for day in (day for day in days if day.world == world):
            shares = [day.coverage, day.saved, day.true, day.lived, day.reported]
            alarm = "" if day.alarm_after is None else f"after {day.alarm_after} audits"
            alarm += "" if day.reopened is None else f" reopened at call {day.reopened}"
            shown = ["" if x is None else f"{100 * x:.1f}" for x in shares]
            table.add_row(day.arm, str(day.day), *shown, str(day.audits), alarm)
        Console(width=140).print(table)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the order of the rows and of the audits")
    parser.add_argument("--world", choices=["calm", "drift"], help="only one of the two")
    parser.add_argument("--json", type=Path, help="append one line per arm and day")
    parser.add_argument("--plot", type=Path, help="draw an SVG")
    args = parser.parse_args()
    days: list[Day] = []
    for world in worlds(load("banking77"), args.seed):
        if args.world not in (None, world.name):
            continue
        with tempfile.TemporaryDirectory() as name:
            for run in arms(world, args.seed, Path(name)):
                found = run()
                days += found
                if args.json:
                    with args.json.open("a", encoding="utf-8") as file:
                        file.writelines(json.dumps(asdict(day) | {"seed": args.seed}) + "\n" for day in found)
    show(days)
    if args.plot:
        args.plot.write_text(draw([asdict(day) for day in days]), encoding="utf-8")


if __name__ == "__main__":
    main()
