"""Table of labels: handled share, recall and agreement per label, and the worst predicted label."""

from typing import Any

import numpy as np

from tracer_serve.gate.binomial import exact_interval
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.intervals import share
from tracer_serve.types import Bools, Ints


def classes_of(seen: CalibrationView) -> dict[str, Any]:
    """Return a row per label, most frequent first, and the worst predicted label.

    ``handled`` counts rows by the teacher's label, and ``recall`` is the certificate's (`gate.recall`); ``answers``
    counts handled rows by the surrogate's label, which is what a user sees, and ``agreement`` is the teacher's among
    those. The worst label is the one whose agreement is most surely low: least upper end of the exact interval.
    """
    size = len(seen.classes)

    def count(labels: Ints, rows: Bools) -> Ints:
        return np.bincount(labels[rows], minlength=size)

    rows, handled = count(seen.truth, np.ones(len(seen), bool)), count(seen.truth, seen.handled)
    agreed_all = count(seen.truth, seen.agreed)
    answers, right = count(seen.top, seen.handled), count(seen.top, seen.handled & seen.agreed)
    low, high = exact_interval(right, answers)
    handled_low, handled_high = exact_interval(handled, rows)
    columns = {
        "label": seen.classes,
        "rows": rows,
        "handled": handled,
        "handled_share": share(handled, rows),
        "handled_interval": np.stack([handled_low, handled_high], axis=1),
        "surrogate_agreement": share(agreed_all, rows),
        "answers": answers,
        "agreements": right,
        "agreement": share(right, answers),
        "agreement_interval": np.stack([low, high], axis=1),
    }
    order = np.lexsort((seen.classes, -rows))
    table = [{name: values[i] for name, values in columns.items()} for i in order]
    recalls = {row.label: row for row in seen.certificate.recalls}
    for row in table:
        kept = recalls.get(str(row["label"]))  # a label that only the surrogate knows has none
        row["recall"] = None if kept is None else kept.recall
        row["recall_interval"] = [0.0, 1.0] if kept is None else [kept.low, kept.high]
    answered = [row for row in table if row["answers"]]
    worst = min(answered, key=lambda row: (row["agreement_interval"][1], row["agreement"])) if answered else None
    return {"rows": table, "worst": worst}
