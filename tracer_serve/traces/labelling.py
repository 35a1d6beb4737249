"""What a row becomes when it gets its label."""

from tracer_serve.records import Answer, LabelSource
from tracer_serve.traces.codec import dump, pack, pack_some, parse, unpack_some
from tracer_serve.traces.rows import Row


def labelled(row: Row, label: str, source: LabelSource, answer: Answer | None, fingerprint: str | None) -> Row:
    """Return the row with its label; the label that is replaced, if it differs, is kept in the metadata."""
    after = row._replace(
        teacher_label=pack(label),
        label_source=source,
        teacher_fingerprint=row.teacher_fingerprint or pack_some(fingerprint),
    )
    if row.teacher_label not in (None, after.teacher_label):
        replaced = {"label": unpack_some(row.teacher_label), "source": row.label_source}
        after = after._replace(metadata=dump({**parse(row.metadata), "replaced": replaced}))
    if answer is None:
        return after
    latency = {**parse(row.latency_ms), "teacher": answer.latency_ms}
    return after._replace(usage=dump(answer.usage), cost=float(answer.cost), latency_ms=dump(latency))
