"""Classify whole files: read, classify and write in a stream that can be resumed after an interruption."""

from tracer_serve.serving.batch.classify_file import FileSummary, classify, classify_asking
from tracer_serve.serving.batch.input_lines import InputLine, lines_of
from tracer_serve.serving.batch.output_files import Sink, open_sink

__all__ = ["FileSummary", "InputLine", "Sink", "classify", "classify_asking", "lines_of", "open_sink"]
