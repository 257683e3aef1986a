"""The LASSO path by least-angle regression, as far as a wanted number of variables.

Efron, Hastie, Johnstone, Tibshirani, Least Angle Regression, Annals of Statistics 32 (2004), sections 2 and 3.1. As the
penalty falls from infinity, the active variables keep equal absolute correlation with the residual. At each knot one
joins, whose correlation has caught up, or one leaves, whose coefficient crosses zero. Inner products are all that is
needed, and the inverse of the active block is updated, never recomputed: several times as fast as scikit-learn's
`lars_path_gram` on 512 variables, and it stops where the count is met.
"""

import numpy as np

_DEPENDENT = 1e-7  # a variable of which the active ones leave less than this part unexplained never joins
_LATE = 32  # updates of the inverse that are added up in one matrix product
_DONE = 1e-10  # of the highest correlation at the start: what is left is rounding


def lasso_support(gram: np.ndarray, target: np.ndarray, count: int) -> tuple[list[int], np.ndarray]:
    """The first `count` variables that are active together, ascending, and the coefficients (C,) at that knot.

    `gram` (C, C) and `target` (C,): inner products of the variables with each other and with the target. Fewer where
    the path ends before, at a least-squares solution. Ties join in the order of their indices.
    """
    # Sums over samples and outputs have any size; scaled to a mean of 1, the inverse neither overflows nor vanishes.
    # The path stays the same, and so do the coefficients, which have no unit.
    scale = float(gram.diagonal().mean())
    if not scale > 0:
        return [], np.zeros(len(gram))
    path = _Path(gram / scale, target / scale)
    # `highest` is C of the paper and the penalty at once: all active variables have |correlation| C, the others less.
    highest = float(np.abs(path.correlation).max())
    done = _DONE * highest
    path.join(int(np.abs(path.correlation).argmax()))
    for _ in range(10 * len(gram)):  # variables seldom leave, so there are little more knots than variables
        if path.size == count or highest <= done:
            break
        # The path is straight up to the next knot: a variable joins, one leaves (section 3.1, the LASSO modification),
        # or C is zero and the least-squares solution is reached.
        direction, fall = path.direction()
        joining, to_join = path.next_to_join(fall, highest)
        leaving, to_leave = path.next_to_leave(direction)
        step = min(to_join, to_leave, highest)
        path.walk(step, direction, fall)
        highest -= step
        # One change a knot. Of two at once the other comes after a step of zero; leaving goes first, so that no
        # variable is active with a coefficient of the wrong sign.
        if step == to_leave:
            path.leave(leaving)
        elif step == to_join:
            path.join(joining)
    return sorted(path.members().tolist()), path.coefficients


class _Path:
    """The active variables, their rows of the Gram matrix, the inverse of their block of it, and where the path is.

    Arrays are allocated once; the first `size` entries of those of the active variables count. A variable that joins
    adds u u^T to the inverse; the last few u are kept as they are, and added in one product.
    """

    def __init__(self, gram: np.ndarray, correlation: np.ndarray):
        width = len(gram)
        self.gram = gram
        self.correlation = correlation  # with the residual
        self.coefficients = np.zeros(width)
        self.outside = gram.diagonal() > 0  # may join: neither active nor dependent on those that are
        self.size = 0
        self._active = np.zeros(width, dtype=np.intp)
        self._signs = np.zeros(width)
        self._rows = np.empty((width, width))
        self._inverse = np.zeros((width, width))
        self._late = np.zeros((_LATE, width))  # u, not in the inverse yet
        self._n_late = 0

    def members(self) -> np.ndarray:
        """The active variables, in the order they joined."""
        return self._active[: self.size]

    def direction(self) -> tuple[np.ndarray, np.ndarray]:
        """Change of the active coefficients, and fall of all correlations, as the highest one falls by 1."""
        # G_AA^-1 s: with it the correlations of the active variables fall by their signs s, all alike. Not the paper's
        # equiangular unit vector (2.6) but a multiple of it, so that steps are measured in C.
        direction = self._solve(self._signs[: self.size])
        return direction, direction @ self._rows[: self.size]

    def next_to_join(self, fall: np.ndarray, highest: float) -> tuple[int, float]:
        """The variable whose correlation the falling highest one meets first, and after what step.

        One that has just left is at the highest still, but its correlation falls faster.
        """
        # Equation (2.13): after a step g the highest is C - g, and variable j, which now has c_j, has c_j - g fall_j.
        # It is met from below at g = (C - c_j) / (1 - fall_j), and with the other sign at g = (C + c_j) / (1 + fall_j).
        # One whose correlation falls as fast as the highest (slower = 0) is never met.
        up, down = np.full_like(fall, np.inf), np.full_like(fall, np.inf)
        slower = 1 - fall
        np.divide(highest - self.correlation, slower, out=up, where=self.outside & (slower > _DEPENDENT))
        slower = 1 + fall
        np.divide(highest + self.correlation, slower, out=down, where=self.outside & (slower > _DEPENDENT))
        steps = np.minimum(up, down)
        first = int(steps.argmin())
        return first, max(0.0, float(steps[first]))

    def next_to_leave(self, direction: np.ndarray) -> tuple[int, float]:
        """The place of the active variable whose coefficient reaches zero first, and after what step."""
        # Equation (3.4): -beta_j / d_j, of those that move towards zero. Past zero the sign of the coefficient would no
        # longer be that of the correlation, which the LASSO's optimum demands.
        coefficients = self.coefficients[self.members()]
        steps = np.full_like(direction, np.inf)
        np.divide(-coefficients, direction, out=steps, where=coefficients * direction < 0)
        first = int(steps.argmin())
        return first, float(steps[first])

    def walk(self, step: float, direction: np.ndarray, fall: np.ndarray) -> None:
        """Go on by `step`."""
        self.coefficients[self.members()] += step * direction
        self.correlation = self.correlation - step * fall

    def join(self, variable: int) -> None:
        """Border the inverse with one more row and column, unless the variable depends on the others."""
        # With r = G[A, j], s = G_AA^-1 r and u = G_jj - r.s (what A leaves unexplained of j), the inverse with j is the
        # old one, bordered with zeros, plus v v^T for v = (-s, 1) / sqrt(u).
        n = self.size
        shared = self.gram[variable, self.members()]
        solved = self._solve(shared)
        unexplained = self.gram[variable, variable] - shared @ solved
        self.outside[variable] = False
        if unexplained <= _DEPENDENT * self.gram[variable, variable]:
            return
        if self._n_late == _LATE:
            self._settle()
        late = self._late[self._n_late]
        late[:n], late[n], late[n + 1 :] = -solved, 1.0, 0.0
        late /= np.sqrt(unexplained)
        self._n_late += 1
        self._rows[n] = self.gram[variable]
        self._signs[n] = np.sign(self.correlation[variable])
        self._active[n] = variable
        self.size += 1

    def leave(self, place: int) -> None:
        """Take one row and column out of the inverse."""
        # The inverse without p is the rest of M - M[:, p] M[p, :] / M[p, p], whose row and column p are zero.
        self._settle()
        n, variable = self.size, int(self._active[place])
        inverse = self._inverse[:n, :n]  # a view: what is written to it is written there
        inverse -= np.multiply.outer(inverse[:, place], inverse[place] / inverse[place, place])
        for array in (self._active, self._signs, self._rows, self._inverse):
            array[place : n - 1] = array[place + 1 : n]
        inverse[:, place : n - 1] = inverse[:, place + 1 : n]
        inverse[n - 1] = inverse[:, n - 1] = 0.0  # the next to join adds to it
        self.coefficients[variable] = 0.0
        self.outside[variable] = True
        self.size -= 1

    def _solve(self, right: np.ndarray) -> np.ndarray:
        """Inverse times `right` (size,)."""
        late = self._late[: self._n_late, : self.size]
        return self._inverse[: self.size, : self.size] @ right + (late @ right) @ late

    def _settle(self) -> None:
        late = self._late[: self._n_late, : self.size]
        self._inverse[: self.size, : self.size] += late.T @ late
        self._n_late = 0
