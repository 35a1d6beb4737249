"""Make an earlier version the current one."""

from dataclasses import dataclass

from tracer_serve.errors import ArtifactError
from tracer_serve.storage.versions.store import VersionStore, certified_before


@dataclass(frozen=True, slots=True)
class Rollback:
    """The result of a rollback.

    Parameters
    ----------
    version : the version that is current now
    before : the version that was current before; None if there was none
    """

    version: int
    before: int | None


def roll_back(versions: VersionStore, target: int | None = None) -> Rollback:
    """Make a version current. Running servers load it within a second.

    Parameters
    ----------
    target : its number; default: the last certified version before the current one

    Raises
    ------
    ArtifactError
        If there is no such version, or it is damaged.
    """
    before = versions.current()
    version = certified_before(versions) if target is None else target
    if version is None:
        raise ArtifactError(
            "there is no version yet" if before is None else f"there is no certified version before version {before}"
        )
    versions.activate(version)
    return Rollback(version, before)
