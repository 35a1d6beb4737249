"""The caller of a request: every place that queues gives fair shares per caller."""

from contextvars import ContextVar

CALLER: ContextVar[str] = ContextVar("tracer_serve_caller", default="")
"""The API key's owner, or the client's address where there are no keys; set by the server for each request."""

KEY_ID: ContextVar[str | None] = ContextVar("tracer_serve_key_id", default=None)
"""Eight hex digits of the sha256 of the request's API key, which rows and logs may show; None without a key."""


def within_share(held: int, taken: int, capacity: int, weight: int, more: int = 1) -> bool:
    """Return whether a caller may take `more` of a shared capacity: at most `weight` times what is left free.

    However greedy a caller is, some of the capacity stays free, and a caller that holds nothing finds room (dynamic
    thresholds: A. K. Choudhury and E. L. Hahne, IEEE/ACM Transactions on Networking 6(2), 1998).

    Parameters
    ----------
    held : what this caller holds
    taken : what all callers hold
    weight : one greedy caller gets weight / (weight + 1) of the capacity, n of them n weight / (n weight + 1)

    Examples
    --------
    >>> next(n for n in range(64) if not within_share(n, n, 64, weight=2))
    43
    """
    return taken + more <= capacity and held + more <= weight * (capacity - taken)
