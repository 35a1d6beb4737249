"""Resilience of calls to remote services: deadline, retries, breaker, bounded queue, coalescing, cache.

Each part is independent and takes its clock as an argument, so that other teachers can use any of them.
"""
