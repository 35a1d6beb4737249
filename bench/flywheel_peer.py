"""The arm of tracer-llm in `bench.flywheel`: it refits each night on the labels of what it deferred.

Its candidate gbt is left out, as its configuration advises for many classes.
"""

from bench.flywheel_world import ALPHA, CALLS, DAYS, START, Day, World, agreement
from bench.peer import run_in_peer

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


def peer(world: World) -> list[Day]:
    """Run tracer-llm through all days of a world, in a process of its own."""
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
                seed=world.seed,
                day=number,
                coverage=coverage,
                saved=coverage,
                agreement=agreement(given[rows.start :], accepts[rows.start :], label[rows.start :]),
                lived=agreement(given[rows], accepts[rows], label[rows]),
                reported=found["reported"][number - 1],
                system="tracer-llm",
            )
        )
    return days
