"""A version's report: the data as JSON, and one self-contained page drawn from it (docs/report.md)."""

from tracer_serve.report.build import build_report
from tracer_serve.report.render import content_security_policy, render_html

__all__ = ["build_report", "content_security_policy", "render_html"]
