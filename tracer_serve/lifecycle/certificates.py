"""Read what a stored version was certified for."""

from dataclasses import dataclass

from pydantic import ValidationError

from tracer_serve.errors import ArtifactError
from tracer_serve.gate.certificate import CERTIFICATE, Certificate
from tracer_serve.storage.versions.store import VersionStore


@dataclass(frozen=True, slots=True)
class CertifiedVersion:
    """A version as the gate sees it.

    Parameters
    ----------
    number : its number
    certificate : what the gate found when the version was fitted
    teacher : fingerprint of the teacher on whose labels it was certified
    after : its calibration rows came after this trace id
    """

    number: int
    certificate: Certificate
    teacher: str
    after: str = ""


def certified_version(versions: VersionStore, number: int) -> CertifiedVersion:
    """Read a version as the gate sees it.

    Raises
    ------
    ArtifactError
        The manifest or the certificate is missing or damaged.
    """
    manifest = versions.manifest(number)
    return CertifiedVersion(number, certificate_of(versions, number), manifest.teacher, manifest.after)


def current_version(versions: VersionStore) -> CertifiedVersion | None:
    """Read the current version as the gate sees it; None without one, or if its certificate cannot be read.

    Such a version does not serve, and `VersionLoader.problem` says why.
    """
    current = versions.current()
    if current is None:
        return None
    try:
        return certified_version(versions, current)
    except ArtifactError:
        return None


def certificate_of(versions: VersionStore, number: int) -> Certificate:
    """Read the certificate of a version.

    Raises
    ------
    ArtifactError
        The file is missing or damaged.
    """
    file = versions.folder(number) / "certificate.json"
    try:
        return CERTIFICATE.validate_json(file.read_bytes())
    except OSError as error:
        raise ArtifactError(
            f"{file} cannot be read: {error}. Choose another version with `tracer-serve rollback TASK.yaml`"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(
            f"{file} was not written by this release ({'.'.join(map(str, first['loc']))}: {first['msg']})."
            " `tracer-serve refit TASK.yaml` writes a new version"
        ) from error
