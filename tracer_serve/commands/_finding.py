"""What the gate found on a version, in words."""

from tracer_serve.console import measured_of
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
