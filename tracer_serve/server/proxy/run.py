"""Run the proxy's application in this process."""

from contextlib import suppress
from socket import socket

import uvicorn
from starlette.applications import Starlette

from tracer_serve.server.http.connection_limits import BoundedProtocol

_KEEP_ALIVE_S = 30
_GRACE_S = 10


def run_proxy(app: Starlette, listener: socket) -> None:
    """Serve until SIGTERM or SIGINT; answers in flight may take a few seconds to finish.

    Parameters
    ----------
    listener : bound to the address
    """
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,  # those of the upstream are forwarded
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once everything has been shut down
        uvicorn.Server(config).run([listener])
