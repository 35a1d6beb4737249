import numpy as np
import pytest

from tracer_serve.gate.fair_sample import calibration_rows


@pytest.mark.parametrize(
    ("accepted", "audited", "labelled", "u", "counts"),
    [
        (True, True, True, 0.05, True),
        (True, False, True, 0.5, False),  # a person labelled a handled row: not drawn at random
        (True, True, False, 0.05, False),  # the audit failed
        (False, False, True, 0.05, True),
        (False, False, True, 0.5, False),
        (False, False, False, 0.05, False),  # the teacher was down
    ],
)
def test_which_rows_count(accepted: bool, audited: bool, labelled: bool, u: float, counts: bool) -> None:
    """A row counts where its draw is under the rate in force and its label came by that draw."""
    mask = calibration_rows(*(np.array([value]) for value in (0.1, accepted, audited, labelled, u)))
    assert mask.tolist() == [counts]


def test_everything_counts_where_everything_was_asked() -> None:
    """At rate 1, before the first version and while the gate is closed, every labelled row counts."""
    none, everything = np.zeros(50, bool), np.ones(50, bool)
    u = np.random.default_rng(0).random(50)
    assert calibration_rows(np.ones(50), none, none, everything, u).all()


def test_the_sample_is_fair_though_the_hard_ones_are_labelled_more() -> None:
    """Agreement and accepted share among the drawn rows are those of all traffic, not those of the labelled."""
    rng = np.random.default_rng(0)
    hardness = rng.random(200_000)
    accepted, agrees = hardness < 0.7, rng.random(200_000) < 1 - 0.3 * hardness
    rate = np.where(np.arange(200_000) < 100_000, 0.05, 0.5)  # boosted half-way
    u = rng.random(200_000)
    audited = accepted & (u < rate)
    labelled = ~accepted | audited
    drawn = calibration_rows(rate, accepted, audited, labelled, u)
    assert agrees[drawn].mean() == pytest.approx(agrees.mean(), abs=0.006)
    assert accepted[drawn].mean() == pytest.approx(0.7, abs=0.008)
    assert abs(accepted[labelled].mean() - 0.7) > 0.2
