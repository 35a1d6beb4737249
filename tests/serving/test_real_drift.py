"""The monitor on drift that nobody planted: CLINC150's test part was collected differently from its train part."""

import os
from pathlib import Path

import pytest

from bench.data import Dataset, load
from bench.monitor import DELTA, judge, splits

SPEC = {"surrogates": ["knn"], "fit": {"folds": 3}, "gate": {"alpha": 0.97, "delta": DELTA}}
ORDERS = 40


@pytest.fixture(scope="module")
def clinc() -> Dataset:
    """CLINC150, embedded."""
    folder = os.environ.get("TRACER_BENCH_DATA", "")
    if not (Path(folder) / "clinc150_full.json").is_file():
        pytest.skip("needs TRACER_BENCH_DATA, the folder that holds clinc150_full.json")
    return load("clinc150")


@pytest.mark.slow
def test_the_alarm_rings_where_the_world_changed_and_only_there(clinc: Dataset) -> None:
    """Certified on train, agreement on test is under alpha and nearly all orders alarm; on a random split none does."""
    (_, train, test), (_, known, later) = splits(clinc, pooled=1)
    drifted, pooled = judge("drift", train, test, SPEC, ORDERS), judge("pooled", known, later, SPEC, ORDERS)
    assert drifted.coverage > 0.8
    assert drifted.agreement < drifted.alpha
    assert drifted.alarms >= 0.9 * ORDERS
    assert pooled.alarms == 0
