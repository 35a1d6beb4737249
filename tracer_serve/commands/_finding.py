"""What the gate found on a version, in words."""

from tracer_serve.load import Task
from tracer_serve.records import Certificate
from tracer_serve.report.headline import verdict_of
from tracer_serve.stock import versions_of


def finding(task: Task, version: int, certificate: Certificate) -> list[tuple[str, str]]:
    """Return what the gate found on a version, and where its report is."""
    word = "certified" if certificate.certified else "not certified"
    return [
        ("verdict", f"{word}. {verdict_of(certificate)}"),
        *measured_of(certificate),
        ("report", str(versions_of(task).folder(version) / "report.html")),
    ]


def measured_of(certificate: Certificate) -> list[tuple[str, str]]:
    """Return coverage and agreement as rows for `facts`."""
    c = certificate
    if not c.certified:
        return [("rows", f"{c.rows:,} calibration rows")]
    measured = f"{100 * c.agreements / c.n:.1f} % measured ({c.agreements:,} of {c.n:,})"
    proved = f"at least {100 * c.lower_bound:.1f} % with probability {1 - c.delta:g}"
    return [
        ("coverage", f"{100 * c.coverage:.1f} % of the traffic is answered by the surrogate"),
        ("agreement", f"{measured}, {proved}"),
    ]
