"""The template miner finds texts of one template, and leaves ordinary texts apart."""

import time

import numpy as np
import pytest

from tracer_serve.gate.templates import template_ids, template_of
from tracer_serve.types import Ints

NAMES = ["anna", "bob", "carla", "dmitri", "eve", "farid", "gina", "hugo", "ines", "jamal", "kira", "luis", "mina"]
CITIES = ["rome", "paris", "berlin", "madrid", "lisbon", "vienna", "prague", "oslo", "dublin", "athens", "riga"]


def sentences(rng: np.random.Generator, count: int, least: int = 7, most: int = 14) -> list[list[str]]:
    """Made-up sentences of common and rare words, no two alike."""
    words = np.array([f"w{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(3000)])
    chance = 1.0 / (np.arange(3000) + 5.0)
    return [list(rng.choice(words, n, p=chance / chance.sum())) for n in rng.integers(least, most, count)]


def filled(rng: np.random.Generator, templates: int, each: int, *, anywhere: bool) -> tuple[list[str], Ints]:
    """Texts of templates with a name and a city as slots, in random order, and the template of each."""
    texts, truth = [], np.repeat(np.arange(templates), each)
    for words in sentences(rng, templates):
        places = np.sort(rng.integers(0, len(words) + 1, 2)) if anywhere else np.full(2, len(words))
        for _ in range(each):
            name, city = rng.choice(NAMES), rng.choice(CITIES)
            texts.append(
                " ".join([*words[: places[0]], name, *words[places[0] : places[1]], city, *words[places[1] :]])
            )
    order = rng.permutation(len(texts))
    return [texts[i] for i in order], truth[order]


@pytest.mark.parametrize("anywhere", [False, True])
def test_names_and_places_make_no_other_template(anywhere: bool) -> None:
    """Of 150 templates x 6, at least 95 % of the pairs of one template are found, wherever the slots are."""
    texts, truth = filled(np.random.default_rng(0), 150, 6, anywhere=anywhere)
    found = template_ids(texts)
    pairs = np.triu(truth[:, None] == truth, 1)
    assert (found[:, None] == found)[pairs].mean() > 0.95
    assert len(np.unique(found)) > 140


def test_ordinary_texts_stay_apart_and_take_a_second() -> None:
    """Ten thousand texts that share common words only form as many groups, in about a second of CPU."""
    texts = [" ".join(words) for words in sentences(np.random.default_rng(1), 10_000)]
    began = time.process_time()
    found = template_ids(texts)
    assert time.process_time() - began < 4.0  # half a second on an idle core
    assert found.max() + 1 > 0.99 * len(texts)


def test_numbers_are_slots_unless_they_are_what_is_said() -> None:
    """Codes make no other template where three words remain; both sides of a pair count."""
    assert template_ids(["your code is 1", "your code is 2", "2 3", "2 4"]).tolist() == [0, 0, 1, 2]
    assert template_ids([("where is it", "a"), ("where is it", "b")]).tolist() == [0, 0]
    assert template_of(("order 7 is late", "b")) == template_of(("order 8 is late", "B"))
    assert template_ids([]).tolist() == []
