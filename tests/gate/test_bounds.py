import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from tracer_serve.gate.binomial import critical_counts, lower_bounds, n_min, p_values, rows_to_pass

LEVELS = st.floats(0.01, 0.3)
ALPHAS = st.floats(0.5, 0.995)


@given(st.integers(0, 3000), st.integers(0, 3000), ALPHAS)
def test_p_value_is_the_binomial_tail(k: int, n: int, alpha: float) -> None:
    """The p-value equals scipy's binomial survival function, at every count."""
    k = min(k, n)
    assert float(p_values(k, n, alpha)) == pytest.approx(float(binom.sf(k - 1, n, alpha)), rel=1e-7, abs=1e-300)


def test_more_agreements_than_rows_are_impossible() -> None:
    """P(Bin(n, alpha) >= n + 1) is 0, and without rows the p-value is 1."""
    assert p_values(np.array([5, 0]), np.array([4, 0]), 0.9).tolist() == [0.0, 1.0]


@given(st.integers(1, 2000), st.integers(1, 2000), LEVELS)
def test_lower_bound_is_clopper_pearson(k: int, n: int, delta: float) -> None:
    """The lower bound equals the beta quantile of Clopper and Pearson."""
    k = min(k, n)
    assert float(lower_bounds(k, n, delta)) == pytest.approx(float(beta.ppf(delta, k, n - k + 1)), rel=1e-9)


def test_lower_bound_without_agreement_is_zero() -> None:
    """No agreement, or no row, bounds nothing."""
    assert lower_bounds(np.array([0, 0]), np.array([7, 0]), 0.05).tolist() == [0.0, 0.0]


@given(st.integers(0, 1000), st.integers(1, 1000), ALPHAS, LEVELS)
def test_bound_and_test_are_dual(k: int, n: int, alpha: float, delta: float) -> None:
    """The bound reaches alpha just where the test of alpha passes."""
    k, p = min(k, n), float(p_values(min(k, n), n, alpha))
    if abs(p - delta) > 1e-9:
        assert (p <= delta) == (float(lower_bounds(k, n, delta)) >= alpha)


@pytest.mark.parametrize(("alpha", "rows"), [(0.85, 19), (0.9, 29), (0.95, 59), (0.97, 99), (0.99, 299)])
def test_n_min_is_the_published_table(alpha: float, rows: int) -> None:
    """The least number of rows without a disagreement is that of gate.md, section 2, at delta = .05."""
    assert n_min(alpha, 0.05) == rows


@given(ALPHAS, LEVELS)
def test_n_min_is_least(alpha: float, delta: float) -> None:
    """n_min rows without a disagreement pass, one row fewer does not."""
    n = n_min(alpha, delta)
    assert p_values(n, n, alpha) <= delta
    assert n == 1 or p_values(n - 1, n - 1, alpha) > delta


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20), ALPHAS, LEVELS)
def test_critical_count_is_the_least_that_passes(sizes: list[int], alpha: float, delta: float) -> None:
    """The critical count passes, one agreement fewer does not; n + 1 says that no count passes."""
    n = np.array(sizes)
    critical = critical_counts(n, alpha, delta)
    assert np.all(p_values(critical, n, alpha) <= delta)
    assert np.all(p_values(critical - 1, n, alpha) > delta)


@given(st.integers(1, 500), st.integers(1, 500), ALPHAS)
def test_rows_to_pass_would_pass(k: int, n: int, alpha: float) -> None:
    """That many rows at the observed agreement pass; at or under alpha no number is promised."""
    k = min(k, n)
    enough = rows_to_pass(k, n, alpha, 0.05)
    if k / n <= alpha:
        assert enough is None
    elif k / n - alpha > 0.001:
        assert enough is not None
        assert p_values(int(enough * k / n + 1e-9), enough, alpha) <= 0.05
