"""What a row becomes when it gets its label."""

from tracer_serve.storage.traces.codec import dump, pack, pack_some, parse, unpack_some
from tracer_serve.storage.traces.rows import Row
from tracer_serve.types import Answer, LabelSource


def labelled(row: Row, label: str, source: LabelSource, answer: Answer | None, fingerprint: str | None) -> Row:
    """Return the row with its label; the one that does not stand, if it differs, is kept in the metadata.

    A person's label stands, whichever came first. That the teacher answered is noted all the same: people are fast
    where something is wrong, and a row may not leave the calibration for that.
    """
    given, stands, noted = pack(label), stands_against(row, source), parse(row.metadata)
    after = row._replace(teacher_fingerprint=row.teacher_fingerprint or pack_some(fingerprint))
    if row.teacher_label not in (None, given):
        if stands:
            noted = {"replaced": {"label": label, "source": source}} | noted
        else:
            noted |= {"replaced": {"label": unpack_some(row.teacher_label), "source": row.label_source}}
        after = after._replace(metadata=dump(noted))
    if not stands:
        after = after._replace(teacher_label=given, label_source=source)
    if answer is None:
        return after
    latency = {**parse(row.latency_ms), "teacher": answer.latency_ms}
    return after._replace(usage=dump(answer.usage), cost=float(answer.cost), latency_ms=dump(latency))


def stands_against(row: Row, source: LabelSource) -> bool:
    """Say whether a row's label is a person's, and stays whatever the teacher says."""
    return row.label_source == "human" and source != "human"
