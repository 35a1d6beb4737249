"""A task as a bento: everything that answering needs, and nothing that changes."""

from tracer_serve.bento.build import Built, build

__all__ = ["Built", "build"]
