"""Run the proxy's application in this process."""

import uvicorn
from starlette.applications import Starlette

from tracer_serve.server.http.connection_limits import BoundedProtocol

_KEEP_ALIVE_S = 30
_GRACE_S = 10


def run_proxy(app: Starlette, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; answers under way may take a few seconds to end."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,  # the upstream's own are passed on
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    uvicorn.Server(config).run()
