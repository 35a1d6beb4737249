"""Run ``python -m tracer_serve``: the same as the command ``tracer-serve``."""

from tracer_serve.cli.main import entry

if __name__ == "__main__":
    entry()
