"""The service of the tasks that the command names: ``bentoml serve tracer_serve.server.bento.service:svc``.

``--arg task=TASK.yaml`` or ``TRACER_SERVE_TASK`` names them.
"""

import os

import bentoml
from pydantic import BaseModel

from tracer_serve.server.bento.mounted_service import make_service, tasks_or_exit
from tracer_serve.server.process.handshake import TASK


class Arguments(BaseModel):
    """What ``--arg`` sets.

    Parameters
    ----------
    task : path of the YAML, or of a folder of them; several as in ``PATH``. ``TRACER_SERVE_TASK`` overrides it
    """

    task: str = ""


svc = make_service(tasks_or_exit(os.environ.get(TASK) or bentoml.use_arguments(Arguments).task))
