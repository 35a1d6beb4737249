"""Select the task that a request is for."""

import json
from collections.abc import Sequence

from tracer_serve.server.chat.face import Face
from tracer_serve.server.chat.forward import takes
from tracer_serve.server.chat.recognise import TaskCall
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.multi.mounted_task import MountedTask


def by_model(mounts: Sequence[MountedTask], body: bytes) -> MountedTask:
    """Return the task that a body names.

    Raises
    ------
    RefusalError
        400 if it names none, 404 if there is none of this name.
    """
    asked = _model_of(body)
    found = _named(mounts, asked)
    if found is not None:
        return found
    known = ", ".join(repr(mount.name) for mount in mounts)
    if asked is None:
        raise RefusalError(
            400,
            f"'model' must name the task, one of {known}; or use the path /t/NAME/",
            code="missing_field",
            param="model",
        )
    raise RefusalError(
        404, f"there is no model {asked[:64]!r} here, only {known}", code="model_not_found", param="model"
    )


def by_form(mounts: Sequence[MountedTask], body: bytes, face: Face) -> MountedTask | None:
    """Return the task that recognises a call by its form; None if none does, or several do."""
    claims = [mount for mount in mounts if isinstance(mount.chat.recogniser.read(body, face.api), TaskCall)]
    return claims[0] if len(claims) == 1 else None


def by_endpoint(mounts: Sequence[MountedTask], body: bytes, path: str, protocol: str | None = None) -> MountedTask:
    """Return the task whose endpoint a foreign call is forwarded to: one with this model, else the first.

    Parameters
    ----------
    path, protocol : as in `forward.takes`

    Raises
    ------
    RefusalError
        404 if none forwards calls.
    """
    asked = _model_of(body)
    forwarders = [(mount, mount.chat.forwarder) for mount in mounts]
    able = [(mount, forwarder) for mount, forwarder in forwarders if takes(forwarder, path, protocol)]
    if not able:
        model = "" if asked is None else f" of the model {asked[:64]!r}"
        known = ", ".join(repr(mount.name) for mount in mounts)
        raise RefusalError(
            404,
            f"this call{model} is for none of the tasks {known}, and none of them has an endpoint to forward it to",
            code="model_not_found",
            param="model",
        )
    return next((mount for mount, forwarder in able if forwarder.model == asked), able[0][0])


def _named(mounts: Sequence[MountedTask], name: str | None) -> MountedTask | None:
    return next((mount for mount in mounts if mount.name == name), None)


def _model_of(body: bytes) -> str | None:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return None
    name = asked.get("model") if isinstance(asked, dict) else None
    return name if isinstance(name, str) else None
