"""The arm of tracer-llm in `bench.coverage`."""

from collections.abc import Sequence

import numpy as np

from bench.coverage_row import Row, facts_of, judge
from bench.data import Dataset
from bench.peer import run_in_peer

_PEER = """
import json, tempfile, time
from pathlib import Path
import numpy as np
import tracer.api as api
from tracer.config import FitConfig
from tracer.fit.ood import fit_ood_gate
from tracer.fit.pipeline import route_pipeline
from tracer.runtime.router import Router

def main(a):
    frontier, fit_frontier = [], api.fit_frontier
    def keep(*args, **kwargs):
        found = fit_frontier(*args, **kwargs)
        frontier.extend(found[0])
        return found
    api.fit_frontier = keep  # only to look at what its one fit found for each target
    folder = Path(tempfile.mkdtemp())
    rows = [json.dumps({"input": t, "teacher": y}) for t, y in zip(a["texts"], a["labels"])]
    (folder / "traces.jsonl").write_text("\\n".join(rows) + "\\n")
    alphas, x = a["alphas"], a["vectors"]
    config = FitConfig(target_teacher_agreement=alphas[0], frontier_targets=tuple(alphas),
                       skip_candidates=tuple(a["skip"]))
    cpu = time.process_time()
    manifest = api.fit(folder / "traces.jsonl", folder / "artifacts", embeddings=x, config=config).manifest
    out = {"fit_cpu_s": time.process_time() - cpu}
    for i, alpha in enumerate(alphas):
        best = next(f["best"] for f in frontier if abs(f["target"] - alpha) < 1e-9)
        if not (best and best["stages"]):
            continue
        names = dict(enumerate(manifest.label_space))
        guard = fit_ood_gate(x, [names.get(int(p), "?") for p in route_pipeline(best["stages"], x)[0]])
        router = Router(best["stages"], manifest.label_space, manifest, ood_gate=guard, train_embeddings=x)
        for part in ("test", "foreign"):
            if len(a[part]):
                seen = router.predict_batch(a[part])
                out[f"{part}_{i}"] = np.array([label or "" for label in seen["labels"]])
    return out
"""


def peers(data: Dataset, alphas: Sequence[float], delta: float, skip: Sequence[str] = ()) -> list[Row]:
    """Fit tracer-llm once, its frontier at all alphas, and let its router decide on the test rows.

    `skip` names candidates of its sweep to leave out.
    """
    texts = [text if isinstance(text, str) else " | ".join(text) for text in data.train.texts]
    arrays = {"texts": texts, "labels": data.train.labels.tolist(), "vectors": data.train.vectors}
    arrays |= {"test": data.test.vectors, "foreign": data.foreign.vectors, "alphas": list(alphas), "skip": list(skip)}
    found = run_in_peer(_PEER, arrays)
    rows = []
    for i, alpha in enumerate(alphas):
        given = found.get(f"test_{i}", np.full(len(data.test), ""))
        foreign = found.get(f"foreign_{i}", np.full(len(data.foreign), ""))
        facts = {"system": "tracer-llm", "alpha": alpha, "delta": delta, "scope_keep": None, **facts_of(data)}
        cost = {"cpu_s": found["fit_cpu_s"], "peak_mb": found["peak_mb"], "certified_coverage": None}
        rows.append(judge(given, given != "", foreign != "", data.test.labels, **facts, **cost))
    return rows
