"""Resilience of calls to remote services: deadline, retries, breaker, bounded queue, coalescing, cache.

Each piece stands alone and takes its clock from outside, so that a teacher of your own can use any of them.
"""
