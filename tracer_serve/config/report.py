"""`report`: what a version's report shows."""

from typing import Literal

from pydantic import Field

from tracer_serve.config.base import Frozen


class ReportSpec(Frozen):
    """What a version's report shows."""

    texts: Literal["full", "hidden"] = Field(
        default="full",
        description="hidden: report.json and report.html contain no text of a request and no word of one.",
    )
