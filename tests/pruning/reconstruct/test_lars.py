"""The LASSO path: by hand, and by the conditions that a solution must meet."""

import numpy as np
import pytest

from pruning.reconstruct.lars import lasso_support


def test_path_of_two_correlated_variables_by_hand():
    """Targets 2 and 1, inner product 0.25: the second joins when it correlates as much with the residual."""
    gram = np.array([[1.0, 0.25], [0.25, 1.0]])
    active, coefficients = lasso_support(gram, np.array([2.0, 1.0]), 2)
    # correlations 2 - b and 1 - b / 4 are equal at b = 4 / 3
    assert active == [0, 1]
    assert coefficients == pytest.approx([4 / 3, 0.0])


def test_signs_do_not_matter():
    gram = np.array([[1.0, -0.25], [-0.25, 1.0]])
    active, coefficients = lasso_support(gram, np.array([2.0, -1.0]), 2)
    assert active == [0, 1] and coefficients == pytest.approx([4 / 3, 0.0])


@pytest.mark.parametrize(("seed", "width"), [(0, 25), (1, 25), (2, 25), (3, 25), (4, 90)])
def test_every_knot_is_a_lasso_solution(seed, width):
    """All active correlations are equal in size and agree in sign with the coefficients; no other is larger."""
    random = np.random.default_rng(seed)
    x = np.maximum(random.normal(size=(150, width)) @ random.normal(size=(width, width)), 0)
    x *= random.normal(size=width)
    y = x.sum(1) + random.normal(size=150)
    gram, target = x.T @ x, x.T @ y
    for count in range(1, width + 1):
        active, coefficients = lasso_support(gram, target, count)
        correlation = target - gram @ coefficients
        penalty = np.abs(correlation).max()
        assert len(active) == count and set(np.flatnonzero(coefficients)) <= set(active)
        assert np.abs(correlation[active]) == pytest.approx(penalty, rel=1e-6)
        assert (coefficients * correlation >= 0).all()


def test_variables_leave_and_may_come_back():
    """On these data coefficients cross zero: fewer variables than knots, and the conditions above still hold."""
    random = np.random.default_rng(3)
    base = random.normal(size=(40, 3))
    x = base @ random.normal(size=(3, 12)) + 0.3 * random.normal(size=(40, 12))
    y = base @ np.array([3.0, -2.0, 1.0]) + 0.1 * random.normal(size=40)
    entered: set[int] = set()
    left = False
    for count in range(1, 12):
        active, coefficients = lasso_support(x.T @ x, x.T @ y, count)
        left = left or not entered <= set(active)
        entered |= set(active)
        correlation = x.T @ y - x.T @ x @ coefficients
        assert np.abs(correlation[active]) == pytest.approx(np.abs(correlation).max(), rel=1e-6)
    assert left


def test_path_ends_where_nothing_is_left_to_explain():
    x = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 2.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    active, coefficients = lasso_support(x.T @ x, x.T @ x.sum(1), 4)
    assert active == [0, 2]  # 1 is the same as 0, 3 is always zero
    assert coefficients == pytest.approx([2.0, 0.0, 1.0, 0.0])
    assert lasso_support(np.zeros((3, 3)), np.zeros(3), 2)[0] == []
