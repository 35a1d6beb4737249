"""A version's certificate as rows for the terminal."""

from tracer_serve.config.load import Task
from tracer_serve.gate.certificate import Certificate
from tracer_serve.gate.wording import at_least, bound_of, percent, verdict_of
from tracer_serve.report.stage_costs import cascade_costs_of
from tracer_serve.storage.versions.opening import open_versions


def finding(task: Task, version: int, certificate: Certificate) -> list[tuple[str, str]]:
    """Return a version's verdict, its figures and the path of its report."""
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
        agreement += f", at least {at_least(bound)}{each[0]} at a confidence of {1 - c.delta:g}{each[1]}, {c.basis}"
    return [
        ("coverage", f"{percent(c.coverage)} of the traffic is answered by the surrogate"),
        ("agreement", agreement),
    ]


def _stages(found: Certificate) -> list[tuple[str, str]]:
    """Return what each stage of a cascade answers and costs, and the cost of the last stage alone."""
    costs = cascade_costs_of(found)
    if costs is None:
        return []
    rows = []
    for number, row in enumerate(found.stages, 1):
        takes = f"{row.cpu_ms:.3g} ms of CPU per row, after {row.embed_ms:.3g} ms for its embedding"
        does = f"{row.surrogate}: receives {percent(row.asked)}, answers {percent(row.share)}"
        rows.append((f"stage {number}", f"{does}; {takes}"))
    rows.append(("CPU", f"{costs['cascade_ms']:.3g} ms per request; the last stage alone {costs['alone_ms']:.3g} ms"))
    return rows
