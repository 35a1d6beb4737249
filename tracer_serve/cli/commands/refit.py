"""``tracer-serve refit``: the same as ``fit``, under the name that schedules use."""

from tracer_serve.cli.commands.fit import configure, run

__all__ = ["configure", "run"]
