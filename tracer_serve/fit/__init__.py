"""Traces to a certified policy."""
