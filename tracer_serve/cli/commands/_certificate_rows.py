"""What the gate found on a version, in words."""

from tracer_serve.config.load import Task
from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.wording import at_least, bound_of, percent, verdict_of
from tracer_serve.report.stage_costs import spared_of
from tracer_serve.storage.versions.opening import open_versions


def finding(task: Task, version: int, certificate: Certificate) -> list[tuple[str, str]]:
    """Return what the gate found on a version, and where its report is."""
    word = "certified" if certificate.certified else "not certified"
    return [
        ("verdict", f"{word}. {verdict_of(certificate)}"),
        *measured_of(certificate),
        *_stages(certificate),
        ("report", str(open_versions(task).folder(version) / "report.html")),
    ]


def measured_of(certificate: Certificate) -> list[tuple[str, str]]:
    """Return coverage and agreement as rows for `facts`."""
    c = certificate
    if not c.certified:
        return [("rows", f"{c.rows:,} calibration rows")]
    agreement, bound = f"{percent(c.agreements / c.n)} measured ({c.agreements:,} of {c.n:,})", bound_of(c)
    if bound is not None:
        each = (" for each certified label", " per label") if c.per_class else ("", "")
        agreement += f", at least {at_least(bound)}{each[0]} with probability {1 - c.delta:g}{each[1]}"
    return [
        ("coverage", f"{percent(c.coverage)} of the traffic is answered by the surrogate"),
        ("agreement", agreement),
    ]


def _stages(found: Certificate) -> list[tuple[str, str]]:
    """Return what each stage of a cascade answers and costs, and what that spares."""
    spared = spared_of(found)
    if spared is None:
        return []
    told = []
    for number, row in enumerate(found.stages, 1):
        takes = f"{row.cpu_ms:.3g} ms of CPU a row, {row.embed_ms:.3g} ms before that to embed it"
        does = f"{row.surrogate}: asked about {row.asked:.1%}, answers {row.share:.1%}"
        told.append((f"stage {number}", f"{does}; {takes}"))
    told.append(("CPU", f"{spared['cascade_ms']:.3g} ms a request; the last stage alone {spared['alone_ms']:.3g} ms"))
    return told
