"""A teacher's state for dashboards and health checks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """Breaker states, queue lengths and counts since the teacher was created.

    Parameters
    ----------
    breakers : host and breaker state (``closed``, ``open``, ``half_open``) of each endpoint, the preferred one first
    in_flight, waiting : calls in flight, and calls in the queue
    asked : texts to label, including those answered from the cache
    cached, coalesced : the part of `asked` answered from the cache, and by another caller's identical call
    errors : texts that ended in an error, by reason
    cost : money spent, including unusable answers, in the price's currency
    """

    breakers: tuple[tuple[str, str], ...]
    in_flight: int
    waiting: int
    asked: int
    cached: int
    coalesced: int
    errors: dict[str, int]
    cost: float
