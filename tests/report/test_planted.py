"""What was made wrong on purpose is found."""

import re

import numpy as np
import pytest

from tests.report.conftest import Case, blobs, case_of, make_task
from tracer_serve.report.calibration_view import CalibrationView
from tracer_serve.report.embedding_layout import layout
from tracer_serve.report.forecast import forecast
from tracer_serve.report.neighbours import closeness


def test_planted_teacher_errors_lead_the_cards(banking: Case) -> None:
    """Of 20 labels replaced at random in the shipped traces at least 15 are among the first 40 cards."""
    first = {card["row"] for card in banking.report["cards"]["cards"][:40]}
    assert len(first & set(banking.planted.tolist())) >= 15


def test_swaps_with_the_nearest_other_label_lead_the_cards_too() -> None:
    """Of 20 labels replaced by that of the nearest row of another label at least 15 are among the first 40 cards."""
    texts, labels, vectors = blobs(1500, 12, seed=2, spread=0.9)
    planted = np.random.default_rng(2).choice(len(texts), 20, replace=False)
    changed = labels.copy()
    for i in planted:
        cosine = np.where(labels == labels[i], -1.0, vectors @ vectors[i])
        changed[i] = labels[cosine.argmax()]
    report = case_of(make_task(), texts, changed, vectors, planted).report
    assert len({card["row"] for card in report["cards"]["cards"][:40]} & set(planted.tolist())) >= 15


def test_closeness_is_the_mean_of_the_three_nearest_and_leaves_duplicates_out(small: Case) -> None:
    """It equals a plain recount over the other groups' rows of the label."""
    seen = CalibrationView.of(small.task, small.fitted, small.texts)
    rows, labels = np.arange(0, len(seen), 37), (np.arange(0, len(seen), 37) * 5) % len(seen.classes)
    for found, row, label in zip(closeness(seen, rows, labels), rows, labels, strict=True):
        others = (seen.truth == label) & (seen.group != seen.group[row])
        assert found == pytest.approx(np.sort(seen.vectors[others] @ seen.vectors[row])[-3:].mean(), abs=1e-5)


def test_the_only_row_of_a_label_is_no_mistake_for_that() -> None:
    """That nothing is near to a label's only row speaks for no other label: its card stays under a half."""
    texts, labels, vectors = blobs(120, 4, seed=3)
    lonely = np.append(labels[:-8], [f"new_{i}" for i in range(8)])
    fresh = np.random.default_rng(3).normal(size=(8, vectors.shape[1])).astype(np.float32)
    vectors[-8:] = fresh / np.linalg.norm(fresh, axis=1, keepdims=True)
    cards = case_of(make_task(), texts, lonely, vectors, np.arange(0)).report["cards"]["cards"]
    found = [card["suspicion"] for card in cards if card["teacher"].startswith("new_")]
    assert len(found) == 8
    assert max(found) < 0.5


def test_cards_bring_evidence_that_is_not_the_row_itself(banking: Case) -> None:
    """Every card's evidence carries the surrogate's label and another text."""
    cards = banking.report["cards"]["cards"]
    assert any(card["agreeing"] for card in cards)
    for card in cards:
        assert all(near["label"] == card["surrogate"] and near["text"] != card["text"] for near in card["agreeing"])


def test_two_labels_swapped_at_random_are_the_worst_slices() -> None:
    """Where the teacher confuses two labels, both are among the first three slices by disagreement and by deferral."""
    texts, labels, vectors = blobs(1200, 10, seed=5, spread=0.7)
    two = np.isin(labels, ["label_02", "label_07"])
    swapped = two & (np.random.default_rng(5).random(len(labels)) < 0.5)
    changed = np.where(swapped, np.where(labels == "label_02", "label_07", "label_02"), labels)
    report = case_of(make_task(), texts, changed, vectors, np.flatnonzero(swapped)).report
    for event in ("disagreed", "deferred"):
        first = " ".join(s["name"] for s in report["slices"][event]["slices"][:3] if s["sure"])
        assert re.search("label_02|topic2", first), first
        assert re.search("label_07|topic7", first), first


def test_a_noised_word_is_among_the_worst_slices() -> None:
    """Where the texts with one word, spread over all labels, get random labels, that word comes first."""
    texts, labels, vectors = blobs(1500, 8, seed=6, spread=0.7)
    rng = np.random.default_rng(6)
    noised = rng.random(len(texts)) < 0.08
    marked = [f"{text} zebra" if mark else text for text, mark in zip(texts, noised, strict=True)]
    changed = np.where(noised, rng.permutation(labels), labels)
    slices = case_of(make_task(), marked, changed, vectors, np.flatnonzero(noised)).report["slices"]["disagreed"]
    assert "“zebra”" in [s["name"] for s in slices["slices"][:3]]


def test_no_slice_is_sure_where_errors_fall_evenly() -> None:
    """With errors planted evenly no slice survives the correction for how many groups were looked at."""
    texts, labels, vectors = blobs(1000, 6, seed=7, spread=0.4)
    noised = np.random.default_rng(7).random(len(texts)) < 0.1
    changed = np.where(noised, np.roll(labels, 1), labels)
    slices = case_of(make_task(), texts, changed, vectors, np.flatnonzero(noised)).report["slices"]["disagreed"]
    assert not [s["name"] for s in slices["slices"] if s["sure"]]


def test_learning_curve_rises_and_its_forecast_follows(banking: Case) -> None:
    """More traces certified more, and twice as many are expected to certify more still."""
    plateau = banking.report["plateau"]
    by_size: dict[int, list[float]] = {}
    for point in plateau["points"]:
        by_size.setdefault(point["traces"], []).append(point["coverage"])
    means = [float(np.mean(by_size[size])) for size in sorted(by_size)]
    assert means[-1] > means[0]
    ahead = plateau["forecast"]
    assert ahead is None or means[-1] <= ahead["low"] <= ahead["coverage"] <= ahead["high"] <= 1.0


def test_forecast_of_a_power_law_is_exact_and_refuses_two_sizes() -> None:
    """Points on a power law are continued exactly; two sizes give no forecast."""
    sizes = np.array([100.0, 200.0, 400.0])
    found = forecast(sizes, 1 - 0.5 * (sizes / 100) ** -0.7)
    assert found is not None
    np.testing.assert_allclose([found["coverage"], found["low"], found["high"]], 1 - 0.5 * 8**-0.7)
    assert forecast(sizes[:2], np.array([0.4, 0.5])) is None


def test_layout_keeps_neighbours_together_and_is_repeatable() -> None:
    """On the map most nearest neighbours share their blob, and the same vectors give the same map."""
    _, labels, vectors = blobs(400, 5, seed=8, spread=0.5)
    place = layout(vectors)
    np.testing.assert_array_equal(place, layout(vectors))
    distance = ((place[:, None] - place[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (labels[distance.argmin(axis=1)] == labels).mean() > 0.9
    assert np.abs(place).max() <= 1.0
