"""Read the certificate of a stored version."""

from tracer_serve.errors import ArtifactError
from tracer_serve.gate.certificate import CERTIFICATE, Certificate
from tracer_serve.storage.versions.local import Versions


def certificate_of(versions: Versions, number: int) -> Certificate:
    """Read the certificate of a version.

    Raises
    ------
    ArtifactError
        Where it is not there or not whole.
    """
    file = versions.folder(number) / "certificate.json"
    try:
        return CERTIFICATE.validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{file} cannot be read: {error}. Choose another version with `tracer-serve rollback`"
        ) from error
