"""Merge a label into a row: a person's label replaces the teacher's, and the teacher's is kept beside it."""

from tracer_serve.storage.traces.codec import dump, pack, pack_some, parse, unpack_some
from tracer_serve.storage.traces.rows import Row
from tracer_serve.types import Answer, LabelSource


def labelled(row: Row, label: str, source: LabelSource, answer: Answer | None, fingerprint: str | None) -> Row:
    """Return the row with its label.

    A person's label wins, whichever came first. ``metadata["replaced"]`` then keeps the teacher's, also when a person
    corrects the row twice, since only the teacher's label calibrates.
    """
    given, keeps, noted = pack(label), keeps_human_label(row, source), parse(row.metadata)
    after = row._replace(teacher_fingerprint=row.teacher_fingerprint or pack_some(fingerprint))
    if row.teacher_label not in (None, given):
        if keeps:
            noted = {"replaced": {"label": label, "source": source}} | noted
        elif row.label_source != "human":
            noted |= {"replaced": {"label": unpack_some(row.teacher_label), "source": row.label_source}}
        after = after._replace(metadata=dump(noted))
    if not keeps:
        after = after._replace(teacher_label=given, label_source=source)
    if answer is None:
        return after
    latency = {**parse(row.latency_ms), "teacher": answer.latency_ms}
    return after._replace(usage=dump(answer.usage), cost=float(answer.cost), latency_ms=dump(latency))


def keeps_human_label(row: Row, source: LabelSource) -> bool:
    """Return whether a row's label is a person's and the new one is not."""
    return row.label_source == "human" and source != "human"
