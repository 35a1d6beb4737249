"""Benchmarks of tracer-serve and tracer-llm, on the same rows in the same run."""
