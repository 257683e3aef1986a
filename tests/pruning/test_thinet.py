"""ThiNet: the greedy choice and the rescaling."""

from itertools import combinations

import pytest
import torch
from support.reconstruction_networks import Chain

from pruning.graph.groups import find_groups
from pruning.methods import Request
from pruning.methods.thinet import Options, keep_greedily, prune
from pruning.select import Selection


def test_greedy_order_by_hand():
    """Alone, channel 0 costs least (1); after it 2, which cancels it (1 + 4 - 4), although 1 alone costs less (3)."""
    gram = torch.tensor([[1.0, 0.0, -2.0], [0.0, 3.0, 0.0], [-2.0, 0.0, 4.0]])
    assert keep_greedily(gram, 2) == (1, 2)
    assert keep_greedily(gram, 1) == (1,)


def test_ties_keep_the_lower_index():
    assert keep_greedily(torch.eye(4), 2) == (0, 1)


def test_greedy_equals_direct_recomputation():
    x = torch.rand(50, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.4
    removed: list[int] = []
    while len(removed) < 8:
        costs = {c: float(x[:, [*removed, c]].sum(1).square().sum()) for c in range(12) if c not in removed}
        removed.append(min(costs, key=costs.__getitem__))
        assert keep_greedily(x.T @ x, 12 - len(removed)) == tuple(sorted(set(range(12)) - set(removed)))


def test_the_first_removal_is_the_best_and_the_second_close():
    x = torch.rand(40, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.4
    for n_removed, worst in ((1, 1.0), (2, 1.5)):
        kept = keep_greedily(x.T @ x, 5 - n_removed)
        cost = {t: float(x[:, t].sum(1).square().sum()) for t in combinations(range(5), n_removed)}
        assert cost[tuple(sorted(set(range(5)) - set(kept)))] <= worst * min(cost.values())


def a_chain():
    """Hidden channels a, b, a, 0.5 b of the inputs a, b >= 0; the last layer reads the first two twice as strongly."""
    return Chain([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.5]], [[2.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 1.0]])


def test_rescaling_makes_up_for_what_depends_on_the_kept():
    """Removed: 0.5 b and a. Output (2a + a, 2b + 0.5 b), so the kept channels need factors 1.5 and 1.25."""
    model = a_chain()
    images = torch.rand(8, 2, 4, 4)
    asked = Request(find_groups(model, images[:1]), Selection(0.5), Options(), 0, lambda m: [m(images).mean()])
    choice = prune(model, asked)
    assert choice.keep == {"0": (0, 1)}
    weight = choice.weights["2.weight"][..., 0, 0]
    torch.testing.assert_close(weight, torch.tensor([[3.0, 0.0, 0.0, 0.0], [0.0, 2.5, 0.0, 0.0]]))
    unscaled = Request(asked.groups, Selection(0.5), Options(rescale=False), 0, asked.calibration)
    assert prune(model, unscaled).weights["2.weight"][0, :, 0, 0].tolist() == [2.0, 0.0, 0.0, 0.0]


def test_a_count_outside_the_layer_is_refused():
    with pytest.raises(ValueError, match=r"n_keep=0 is outside 1..3"):
        keep_greedily(torch.eye(3), 0)
