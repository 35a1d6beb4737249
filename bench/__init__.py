"""Benchmarks: ours beside the peer's, on the same rows in the same run."""
