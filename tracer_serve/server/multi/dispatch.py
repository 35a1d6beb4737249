"""Which of several tasks a call is for."""

import json
from collections.abc import Sequence

from tracer_serve.server.chat.face import Face
from tracer_serve.server.chat.forward import takes
from tracer_serve.server.chat.recognise import TaskCall
from tracer_serve.server.http.errors import RefusalError
from tracer_serve.server.multi.mounted_task import MountedTask


def by_model(sides: Sequence[MountedTask], body: bytes) -> MountedTask:
    """Return the task that a body names.

    Raises
    ------
    RefusalError
        400 where it names none, 404 where there is none of this name.
    """
    asked = _model_of(body)
    found = _named(sides, asked)
    if found is not None:
        return found
    known = ", ".join(repr(side.name) for side in sides)
    if asked is None:
        raise RefusalError(
            400,
            f"'model' has to say for which task this is, {known}; or ask under /t/NAME/",
            code="missing_field",
            param="model",
        )
    raise RefusalError(
        404, f"there is no model {asked[:64]!r} here, only {known}", code="model_not_found", param="model"
    )


def by_form(sides: Sequence[MountedTask], body: bytes, face: Face) -> MountedTask | None:
    """Return the task of whose known forms a call is; None where it is of none, or of several tasks'."""
    claims = [side for side in sides if isinstance(side.chat.recogniser.read(body, face.api), TaskCall)]
    return claims[0] if len(claims) == 1 else None


def by_endpoint(sides: Sequence[MountedTask], body: bytes, path: str, protocol: str | None = None) -> MountedTask:
    """Return the task to whose teacher a foreign call is passed on: one that asks this model, else the first.

    Parameters
    ----------
    path, protocol : as in `forward.takes`

    Raises
    ------
    RefusalError
        404 where none passes calls on.
    """
    asked = _model_of(body)
    forwarders = [(side, side.chat.forwarder) for side in sides]
    able = [(side, forwarder) for side, forwarder in forwarders if takes(forwarder, path, protocol)]
    if not able:
        model = "" if asked is None else f" of the model {asked[:64]!r}"
        known = ", ".join(repr(side.name) for side in sides)
        raise RefusalError(
            404,
            f"this call{model} is for none of the tasks {known}, and none of them has an endpoint to pass it on to",
            code="model_not_found",
            param="model",
        )
    return next((side for side, forwarder in able if forwarder.model == asked), able[0][0])


def _named(sides: Sequence[MountedTask], name: str | None) -> MountedTask | None:
    return next((side for side in sides if side.name == name), None)


def _model_of(body: bytes) -> str | None:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return None
    name = asked.get("model") if isinstance(asked, dict) else None
    return name if isinstance(name, str) else None
