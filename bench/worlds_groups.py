"""Worlds of repeated messages: templates, bursts and conversations."""

import numpy as np

from bench.worlds import ALPHA, Draw, Rng, World, handles
from tracer_serve.fit.folds import random_folds
from tracer_serve.fit.groups import duplicate_groups, groups_of
from tracer_serve.serving.burst_breaker import RepeatCounter
from tracer_serve.types import Bools, Ints

_UNDER = ALPHA - 0.001
_FOLDS = 10
_NAMES = (
    "ann",
    "bob",
    "eva",
    "ian",
    "joe",
    "kim",
    "lea",
    "max",
    "mia",
    "noa",
    "pia",
    "rui",
    "sam",
    "tom",
    "uwe",
    "zoe",
)
_CITIES = ("rome", "oslo", "riga", "bern", "kyiv", "lima", "cork", "bonn", "turin", "porto", "delhi", "cairo")
_WORDS = [f"{a}{b}" for a in ("ba", "do", "fe", "gi", "ho", "ju", "ka", "lo", "mu") for b in ("rt", "lk", "mp", "ns")]


def templates(slots: str, *, named: bool) -> World:
    """Return 150 templates with 6 texts each: a model that has seen a template answers it from memory.

    Parameters
    ----------
    slots : ``end``, or ``anywhere``: the places of names and cities
    named : whether the caller names the template
    """

    def play(rng: Rng, remedy: bool) -> Draw:
        template = np.repeat(np.arange(150), 6)
        texts = _texts(rng, template, slots)
        known = groups_of(texts, [f"t{t}" for t in template] if named else ()) if remedy else duplicate_groups(texts)
        right = rng.random(150) < _UNDER
        agreed = right[template] | _remembered(template, random_folds(known, _FOLDS, int(rng.integers(2**31))))
        handled, coverage = handles(rng, agreed, known)
        return Draw(float(handled), coverage)

    limit = 0.05 if named else 0.1
    return World("templates", named, play, f"slots {slots}", limit)


def conversations(*, named: bool) -> World:
    """Return 300 conversations of 1 to 40 messages that are answered alike; their texts have nothing in common."""

    def play(rng: Rng, remedy: bool) -> Draw:
        size = np.minimum(40, rng.geometric(0.15, 300))
        of = np.repeat(np.arange(300), size)
        known = of if remedy and named else np.arange(len(of))
        right = rng.random(300) < _UNDER
        agreed = right[of] | _remembered(of, random_folds(known, _FOLDS, int(rng.integers(2**31))))
        handled, coverage = handles(rng, agreed, known)
        return Draw(float(handled), coverage)

    return World("conversations", named, play, promised=named)


def bursts(right: float, burst_right: float, variant: str) -> World:
    """Return 2,000 messages sent once and ten bursts of 100, groups given.

    The promise is that messages, their repeats counted once, agree on alpha; and that with the burst breaker so do the
    rows. Without the breaker, the promise is about the rows' own agreement.

    Parameters
    ----------
    right, burst_right : P(agree) of a message, and of a burst
    """

    def play(rng: Rng, remedy: bool) -> Draw:
        groups = np.concatenate([np.arange(2000), 2000 + np.repeat(np.arange(10), 100)])
        ok = np.concatenate([rng.random(2000) < right, (rng.random(10) < burst_right).repeat(100)])
        handled, coverage = handles(rng, ok, groups if remedy else None)
        if not handled:
            return Draw(0.0, 0.0)
        by_group = (2000 * right + 10 * burst_right) / 2010
        wrong_rows = 2000 * (1 - right) + 10 * (1 - burst_right) * (_served_wrongly() if remedy else 100)
        deferred = 10 * (1 - burst_right) * (100 - _served_wrongly()) if remedy else 0.0
        by_row = 1 - wrong_rows / (3000 - deferred)
        return Draw(float(by_row < ALPHA or (remedy and by_group < ALPHA)), coverage)

    return World("bursts", True, play, variant)


def _served_wrongly() -> int:
    """Return how many messages of a burst that is answered wrongly are handled until its first audit."""
    counter, handled = RepeatCounter(), 1
    while not counter.add("burst"):
        handled += 1
    return handled


def _remembered(of: Ints, fold: Ints) -> Bools:
    """Mark rows for which a row of the same cause lies in another fold, and so in their model's training set."""
    seen = np.zeros((int(of.max()) + 1, int(fold.max()) + 1), bool)
    seen[of, fold] = True
    found: Bools = seen.sum(axis=1)[of] > 1
    return found


def _texts(rng: Rng, template: Ints, slots: str) -> list[str]:
    """Write a text of nine words per row: seven of its template's, a name and a city."""
    words = rng.choice(_WORDS, (int(template.max()) + 1, 7))
    places = rng.permuted(np.tile(np.arange(9), (len(words), 1)), axis=1)[:, :2] if slots == "anywhere" else None
    texts = []
    for number in template:
        text = list(words[number])
        name, city = str(rng.choice(_NAMES)), str(rng.choice(_CITIES))
        for place, word in zip(sorted(places[number]) if places is not None else (7, 8), (name, city), strict=True):
            text.insert(int(place), word)
        texts.append(" ".join(text))
    return texts


GROUP_WORLDS = (
    templates("end", named=True),
    templates("anywhere", named=True),
    templates("end", named=False),
    templates("anywhere", named=False),
    bursts(0.97, 0.9, "wrong bursts"),
    bursts(_UNDER, 0.94, "messages just under alpha"),
    conversations(named=True),
    conversations(named=False),
)
