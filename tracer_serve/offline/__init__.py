"""Whole files instead of requests: read, classify and write in a stream, resumable after any interruption."""

from tracer_serve.offline.classify import Tally, classify, classify_asking
from tracer_serve.offline.reading import Line, lines_of
from tracer_serve.offline.sinks import Sink, open_sink

__all__ = ["Line", "Sink", "Tally", "classify", "classify_asking", "lines_of", "open_sink"]
