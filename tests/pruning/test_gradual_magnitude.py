"""Gradual magnitude pruning: the ramp by hand, what it removes and holds, and what it refuses."""

import pytest
import torch
from support.small_networks import Plain
from torch import nn

from pruning.masks import Masks
from pruning.methods import Request, get_method
from pruning.methods.gradual_magnitude import GradualMagnitude, GradualMagnitudeOptions, prune, removed_at
from pruning.select import Selection


def network():
    """One layer of 100 weights, one of 40."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(10, 10, 1, bias=False), nn.Conv2d(10, 4, 1, bias=False))


def request(selection, **options):
    return Request([], selection, GradualMagnitudeOptions(**options), seed=0)


def train(model, effect, steps, *, optimizer=None):
    """Steps with random gradients; yields the counts kept after each, from before the first on."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    effect.plan_for(steps, optimizer)
    effect.at_start()
    yield [int(mask.sum()) for mask in effect.masks().values()]
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        effect.after_backward()
        assert all(not p.grad[~mask].any() for p, mask in held(model, effect))
        optimizer.step()
        effect.after_step(0.1)
        assert all(not p[~mask].any() and bool(p[mask].all()) for p, mask in held(model, effect))
        yield [int(mask.sum()) for mask in effect.masks().values()]


def held(model, effect):
    return [(model.get_parameter(name), mask) for name, mask in effect.masks().items()]


def test_the_cubic_ramp_in_closed_form():
    """s_f + (s_i - s_f) (1 - p)^3 with s_f = 0.8: a half of the way is seven eighths of it."""
    assert removed_at(0, final=0.8) == 0
    assert removed_at(0.25, final=0.8) == pytest.approx(0.8 * (1 - 27 / 64))
    assert removed_at(0.5, final=0.8) == pytest.approx(0.7)
    assert removed_at(1, final=0.8) == 0.8
    assert removed_at(0, final=0.8, initial=0.4) == pytest.approx(0.4)
    assert removed_at(0.5, final=0.8, initial=0.4) == pytest.approx(0.75)
    assert removed_at(0.5, final=0.3, initial=0.4) == 0.3  # a layer that loses less than that


def test_weights_go_at_their_steps_and_the_largest_stay():
    """Begin at 2, every 4 steps, 4 times: fractions 0, 0.4625, 0.7, 0.7875 and 0.8 of 100 and of 40 weights."""
    model = network()
    effect = GradualMagnitude(model, request(Selection(0.8), begin=0.1, end=0.9, every=4))
    counts = list(train(model, effect, 20))
    assert counts[:6] == [[100, 40]] * 6
    assert counts[6:10] == [[53, 21]] * 4
    assert counts[10:14] == [[30, 12]] * 4
    assert counts[14:18] == [[21, 8]] * 4
    assert counts[18:] == [[20, 8]] * 3


def test_what_goes_is_smallest_and_never_comes_back():
    model = network()
    effect = GradualMagnitude(model, request(Selection(0.8), end=1.0, every=1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    steps, before = train(model, effect, 10, optimizer=optimizer), None
    for _ in steps:
        for parameter, (name, mask) in zip(model.parameters(), effect.masks().items(), strict=True):
            if before is not None:
                assert not bool((mask & ~before[name]).any())
                assert not optimizer.state[parameter]["momentum_buffer"][~mask].any()
        before = effect.masks()
    # with nothing trained in between, the last step alone removes the same: the smallest of all
    fresh = network()
    still = GradualMagnitude(fresh, request(Selection(0.8), end=1.0, every=1))
    smallest = prune(network(), request(Selection(0.8))).masks
    still.plan_for(10)
    still.at_start()
    for _ in range(10):
        still.after_step(0.0)
    for name, weight in network().named_parameters():
        assert torch.equal(still.masks()[name], smallest[name])
        assert weight[smallest[name]].abs().min() > weight[~smallest[name]].abs().max()


def test_one_threshold_over_the_network_by_level_global():
    model = network()
    model[1].weight.data *= 100
    effect = GradualMagnitude(model, request(Selection(0.5, level="global"), end=1.0, every=1))
    effect.plan_for(1)
    effect.at_start()
    effect.after_step(0.1)
    assert [int(mask.sum()) for mask in effect.masks().values()] == [30, 40]


def test_shares_by_layer_ramp_each_to_its_own():
    model = network()
    effect = GradualMagnitude(model, request(Selection(0.8, layers={"1": 0.5}), end=1.0, every=1))
    counts = list(train(model, effect, 2))
    assert counts == [[100, 40], [30, 22], [20, 20]]  # 0.7 and 0.4375, then 0.8 and 0.5


def test_a_fraction_may_be_gone_at_the_start():
    model = network()
    effect = GradualMagnitude(model, request(Selection(0.8), initial=0.4, end=1.0, every=2))
    assert list(train(model, effect, 4)) == [[60, 24]] * 2 + [[25, 10]] * 2 + [[20, 8]]


def test_pruning_takes_the_masks_that_training_left():
    model = network()
    effect = GradualMagnitude(model, request(Selection(0.8), end=0.5, every=2))
    list(train(model, effect, 10))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chosen = prune(model, request(Selection(0.8), masks=Masks(dict(effect.masks())))).masks
    assert all(torch.equal(chosen[name], mask) for name, mask in effect.masks().items())
    assert all(torch.equal(state[name] * chosen[name], state[name]) for name in state)
    with pytest.raises(ValueError, match=r"left fewer weights of 0\.weight than the ratio keeps"):
        prune(model, request(Selection(0.5), masks=Masks(dict(effect.masks()))))
    with pytest.raises(ValueError, match=r"removed weights of other layers than those to prune: 1\.weight"):
        prune(model, request(Selection(0.8, skip=("1",)), masks=Masks(dict(effect.masks()))))


@pytest.mark.parametrize("method", ["gradual_magnitude", "rigl"])
def test_trainings_too_short_for_the_schedule_are_refused(method):
    model = Plain()
    entry = get_method(method)
    effect = entry.training_effect(model, Request([], Selection(0.5), entry.options(), seed=0))
    effect.plan_for(200)
    with pytest.raises(ValueError, match=rf"{method}: a training of 100 steps .*lower prune\.options\.every"):
        effect.plan_for(100)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"begin": 0.5, "end": 0.5}, "must be 0 <= begin < end <= 1"),
        ({"end": 1.1}, "must be 0 <= begin < end <= 1"),
        ({"every": 0}, "every=0 must be at least 1 step"),
        ({"initial": 1.0}, "initial 1.0 is outside 0 <= initial < 1"),
    ],
)
def test_what_is_no_ramp_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        GradualMagnitudeOptions(**options)
