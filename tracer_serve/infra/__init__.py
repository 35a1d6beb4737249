"""Threads, tracing, resilience and ids."""
