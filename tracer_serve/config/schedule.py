"""`schedule`: when to refit."""

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger
from pydantic import Field, field_validator

from tracer_serve.config.base import Frozen


class ScheduleSpec(Frozen):
    """Triggers of refits; the monitor's alarm and a person trigger one too."""

    cron: str | None = Field(default=None, description="Five-field crontab line, such as '0 3 * * *'.")
    interval_s: float | None = Field(default=None, gt=0, description="Seconds between refits.")
    timezone: str = Field(default="UTC", description="IANA time zone of the cron line.")
    min_new_traces: int | None = Field(
        default=None, ge=1, description="Refit as soon as this many new labelled traces are in the store."
    )

    new_label: int | None = Field(
        default=5, ge=1, description="Refit as soon as a label unknown to the newest version has occurred this often."
    )
    limit_s: float = Field(default=21_600.0, gt=0, description="Seconds after which a refit is stopped.")
    memory_mb: float | None = Field(
        default=None,
        ge=256,
        description="Memory limit of a refit, MB; a refit that exceeds it fails, and serving continues.",
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is not an IANA time zone such as 'Europe/Berlin'") from error
        return value

    @field_validator("cron")
    @classmethod
    def _valid_cron(cls, value: str | None) -> str | None:
        if value is not None:
            CronTrigger.from_crontab(value)  # raises ValueError with the reason
        return value
