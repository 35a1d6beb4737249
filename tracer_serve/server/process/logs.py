"""Configure logging of the supervisor and of workers."""

import logging
import logging.config
import os
from typing import Any

_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s [%(levelname)s] [%(process)d] %(message)s", "datefmt": "%Y-%m-%dT%H:%M:%S%z"}
    },
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"}},
    "loggers": {"uvicorn.error": {"level": "WARNING"}},
    "root": {"handlers": ["out"], "level": "WARNING"},
}


def log_to_stdout() -> None:
    """Send this process's log to standard output."""
    logging.config.dictConfig(_CONFIG)


def configure_our_log() -> None:
    """Apply ``TRACER_SERVE_LOG`` and ``TRACER_SERVE_LOG_FORMAT`` to our own loggers."""
    from tracer_serve.server.http.request_tracing import log_as_configured  # noqa: PLC0415  # imports Starlette

    logger = logging.getLogger("tracer_serve")
    logger.setLevel(os.environ.get("TRACER_SERVE_LOG", "INFO").upper())
    log_as_configured(logger)
