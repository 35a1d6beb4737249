"""tracer-serve: serve an LLM classification task by a cheap surrogate, where a certificate allows it."""

__version__ = "0.2.0"
