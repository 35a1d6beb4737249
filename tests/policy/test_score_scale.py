"""A stage's score as a predicted agreement."""

import numpy as np
import pytest

from tracer_serve.policy.score_scale import Scale


def test_a_scale_rises_smoothly_to_what_agreed() -> None:
    """Scores that differ never become equal, however alike their agreement, and the agreement is predicted."""
    rng = np.random.default_rng(3)
    score = rng.random(3000)
    agreed = rng.random(3000) < 0.6 + 0.4 * score
    on_path = Scale.fit(score, agreed)(np.linspace(0.01, 0.99, 300))
    assert (np.diff(on_path) > 0).all()
    assert on_path[150] == pytest.approx(0.8, abs=0.05)
    assert np.isfinite(Scale.fit(score, np.ones(3000, bool))(score)).all()
    falling = Scale.fit(-score, agreed)(np.array([-0.9, -0.1]))
    assert falling[0] < falling[1]
