"""What a teacher tells dashboards."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """How a teacher is doing; counts are since its start.

    Parameters
    ----------
    breakers : host, and ``closed``, ``open`` or ``half_open``, of each endpoint, the preferred one first
    in_flight, waiting : calls under way, and calls in the queue
    asked : texts asked for, from whatever source they were answered
    cached, coalesced : of these, answered from the cache, and from another caller's identical call
    errors : texts that ended in an error, by reason
    cost : money spent, unusable answers included, in the price's currency
    """

    breakers: tuple[tuple[str, str], ...]
    in_flight: int
    waiting: int
    asked: int
    cached: int
    coalesced: int
    errors: dict[str, int]
    cost: float
