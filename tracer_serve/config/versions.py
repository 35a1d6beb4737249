"""`versions`: where versions are, and how many."""

from pydantic import Field

from tracer_serve.config.base import Frozen


class VersionsSpec(Frozen):
    """Where versions are, and how many."""

    url: str | None = Field(
        default=None,
        min_length=1,
        description="Folder that machines share, or its URL (s3://, gs://, any fsspec knows), with a folder per task;"
        " default: in the state folder.",
    )
    keep: int = Field(default=20, ge=2, description="How many versions are kept; the current one always is.")
    must_keep_coverage: bool = Field(
        default=False, description="Whether a certified version replaces the current one only if it covers as much."
    )
