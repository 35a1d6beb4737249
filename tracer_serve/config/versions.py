"""`versions`: where versions are stored, and how many are kept."""

from pydantic import Field

from tracer_serve.config.base import Frozen


class VersionsSpec(Frozen):
    """Where versions are stored, and how many are kept."""

    url: str | None = Field(
        default=None,
        min_length=1,
        description="Shared folder or URL (s3://, gs://, any that fsspec supports), with a folder per task; default:"
        " the state folder.",
    )
    keep: int = Field(default=20, ge=2, description="Number of versions kept; the current one is always kept.")
    approve: bool = Field(
        default=False,
        description="A certified version serves only once a person has approved it (`tracer-serve versions --approve`,"
        " the dashboard, or `POST /admin/approve`).",
    )
    must_keep_coverage: bool = Field(
        default=False,
        description="Replace the current version only by one that covers as much. This favours lucky certificates:"
        " the one most likely to be wrong serves longest.",
    )
