"""The newest labelled rows: what a refit reads of a store that has outgrown it."""

import math

from tests.storage.traces.make import handled, trace
from tracer_serve.storage.traces import TraceStore, new_id


def test_a_store_that_has_not_outgrown_a_refit_is_read_whole(store: TraceStore) -> None:
    """Up to the number asked for nothing is left out, and rows that nobody labelled do not count."""
    store.traces.add([trace(store.task) for _ in range(5)])
    store.traces.add([handled(store.task) for _ in range(5)])
    assert store.traces.newest(5) is None
    assert store.traces.newest(4) is not None


def test_the_newest_served_rows_come_first(store: TraceStore) -> None:
    """Of more served rows than are asked for the last ones are read, and no imported one."""
    imported = [trace(store.task, "imported", decision=None, label_source="import") for _ in range(3)]
    served = [trace(store.task, str(i)) for i in range(10)]
    store.traces.add([*served[:5], *imported, handled(store.task), *served[5:]])
    assert store.traces.columns(newest=store.traces.newest(4)).texts == ["6", "7", "8", "9"]
    assert store.traces.columns(served[8].id, newest=store.traces.newest(4)).texts == ["9"]


def test_imported_rows_are_drawn_whatever_their_order(store: TraceStore) -> None:
    """Of a file sorted by label each label keeps about the same share, fewer rows are some of the more, and all served.

    Five standard errors of a binomial share.
    """
    rows, kept = 2_000, 600
    store.traces.add([trace(store.task, f"s{i}") for i in range(100)])
    store.traces.add(
        [
            trace(store.task, str(i), teacher_label=f"l{i * 4 // rows}", decision=None, label_source="import")
            for i in range(rows)
        ]
    )
    found = store.traces.columns(newest=store.traces.newest(100 + kept))
    share, each = kept / rows, rows // 4
    for label in range(4):
        drawn = found.label.is_value(f"l{label}").sum()
        assert abs(drawn - each * share) < 5 * math.sqrt(each * share * (1 - share))
    fewer = store.traces.columns(newest=store.traces.newest(400)).texts
    assert set(fewer) < set(found.texts)
    assert {f"s{i}" for i in range(100)} < set(fewer)


def test_a_label_that_became_rare_is_not_forgotten(store: TraceStore) -> None:
    """Of each label its newest rows are kept besides until there are as many as asked for, or as there are."""
    rare = [trace(store.task, f"rare {i}", teacher_label="rare") for i in range(5)]
    once = trace(store.task, "once", teacher_label="one\x00ce", decision=None, label_source="import")
    others = [trace(store.task, str(i)) for i in range(10)]
    store.traces.add([*rare, once, *others, trace(store.task, "rare 5", teacher_label="rare")])
    found = store.traces.newest(4, each=3)
    assert found is not None
    assert set(found.older) == {rare[4].id, rare[3].id, once.id}
    assert set(store.traces.columns(newest=found).texts) == {"rare 3", "rare 4", "once", "7", "8", "9", "rare 5"}


def test_many_labels_that_became_rare(store: TraceStore) -> None:
    """Thousands of rows that are kept besides are each read once."""
    labels = 700
    store.traces.add([trace(store.task, f"{i} {j}", teacher_label=f"l{i}") for i in range(labels) for j in range(3)])
    store.traces.add([trace(store.task, new_id()) for _ in range(10)])
    texts = store.traces.columns(newest=store.traces.newest(10, each=2)).texts
    assert len(texts) == len(set(texts)) == 10 + 2 * labels
