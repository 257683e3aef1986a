"""SNIP and SynFlow against closed forms and brute force, and the control that keeps each layer's share."""

import copy
from functools import partial
from itertools import product

import pytest
import torch
from support.small_networks import Plain, ThreeConvs, randomise, residual_network
from torch import nn

from pruning.masks import Masks
from pruning.methods import Request, get_method
from pruning.methods.snip import SnipOptions, sensitivities
from pruning.methods.synflow import SynflowOptions, flows, linearised
from pruning.select import Selection

METHODS = ("snip", "synflow", "magnitude", "lamp")


def masks_by(method, model, selection, options=None, *, example=None, calibration=None, seed=0):
    entry = get_method(method)
    request = Request([], selection, options or entry.options(), seed, calibration, example)
    return entry.prune(model, request).masks


def cross_entropy(x, labels, model, parts=1):
    for images, wanted in zip(x.chunk(parts), labels.chunk(parts), strict=True):
        yield nn.functional.cross_entropy(model(images), wanted)


def tiny_mlp():
    """3 -> 4 -> 3 -> 2 units with biases, which no path runs through."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def path_scores(weights):
    """By enumeration: to each weight the products of |w| of the paths that it is on; `weights` by layer."""
    scores = [torch.zeros_like(w) for w in weights]
    widths = [weights[0].shape[1], *(len(w) for w in weights)]
    for path in product(*map(range, widths)):
        steps = [(layer, path[layer + 1], path[layer]) for layer in range(len(weights))]
        flow = torch.stack([weights[layer][row, column].abs() for layer, row, column in steps]).prod()
        for layer, row, column in steps:
            scores[layer][row, column] += flow
    return scores


def test_a_weights_flow_is_that_of_the_paths_through_it():
    model = tiny_mlp()
    names = ["0.weight", "2.weight", "4.weight"]
    found = flows(linearised(model), names, torch.zeros(1, 3))
    expected = path_scores([model.get_parameter(name).detach().double() for name in names])
    for name, scores in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], scores, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rounds", [1, 4])
def test_each_round_is_scored_on_what_the_rounds_before_left(rounds):
    """By enumeration; of 30 weights 6 stay, after rounds that leave 30 * 0.2^(k / 4)."""
    model = tiny_mlp()
    left = [model[i].weight.detach().double().clone() for i in (0, 2, 4)]
    for k in range(1, rounds + 1):
        scores = path_scores(left)
        n_keep = round(30 * 0.2 ** (k / rounds))
        best = [(layer, int(s.argmax())) for layer, s in enumerate(scores)]
        ranked = [(layer, i) for layer, s in enumerate(scores) for i in range(s.numel()) if left[layer].flatten()[i]]
        ranked.sort(key=lambda place: ((place not in best), -float(scores[place[0]].flatten()[place[1]])))
        for layer, i in ranked[n_keep:]:
            left[layer].view(-1)[i] = 0
    masks = masks_by("synflow", model, Selection(0.8), SynflowOptions(rounds=rounds), example=torch.zeros(1, 3))
    assert masks.kept() == 6
    for i, weight in zip((0, 2, 4), left, strict=True):
        assert torch.equal(masks[f"{i}.weight"], weight != 0)


@pytest.mark.parametrize("trained", [False, True])
def test_every_layers_flows_add_up_to_the_same(trained):
    """Whatever BatchNorm's statistics, biases and means are."""
    torch.manual_seed(0)
    model = randomise(Plain(), torch.randn(8, 3, 8, 8)) if trained else Plain()
    found = flows(linearised(model), ["0.weight", "4.weight", "9.weight", "11.weight"], torch.zeros(1, 3, 8, 8))
    sums = torch.stack([scores.sum() for scores in found.values()])
    assert float(sums[0]) > 0
    torch.testing.assert_close(sums, sums[:1].expand(4), rtol=1e-10, atol=0)
    assert all(bool((scores >= 0).all()) for scores in found.values())


def test_what_normalises_by_its_own_input_is_passed_over():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    without = nn.Sequential(*[nn.Identity() if isinstance(m, nn.GroupNorm) else m for m in model])
    found, expected = (
        flows(linearised(m), ["0.weight", "3.weight"], torch.zeros(1, 3, 2, 2)) for m in (model, without)
    )
    assert all(torch.equal(found[name], expected[name]) and bool((found[name] > 0).all()) for name in found)


def bottle():
    """Convolutions whose widths, and so whose weights' sizes, differ widely."""
    torch.manual_seed(0)
    model = nn.Sequential()
    for before, after in ((3, 8), (8, 128), (128, 128), (128, 8), (8, 4)):
        model.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
        nn.init.kaiming_normal_(model[-1].weight)
        model.append(nn.ReLU())
    return model.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())


def flow_left(model, masks):
    """The flow from input to output through the weights that are left."""
    network = linearised(model)
    Masks(masks).apply(network)
    return float(network(torch.ones(1, 3, 8, 8, dtype=torch.float64)).sum())


def test_synflow_cuts_no_layer_off_where_others_do():
    """99 % of the weights gone: magnitude leaves a layer one weight, and no path through the network."""
    model = bottle()
    x, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 4
    terms = {"example": x[:1], "calibration": partial(cross_entropy, x, labels)}
    left = {method: masks_by(method, model, Selection(0.99), **terms) for method in ("synflow", "magnitude", "snip")}
    flow = {method: flow_left(model, masks) for method, masks in left.items()}
    assert flow["synflow"] > 0
    assert flow["magnitude"] == 0
    fewest = {method: min(int(mask.sum()) for mask in masks.values()) for method, masks in left.items()}
    assert fewest["magnitude"] == 1 and fewest["synflow"] > 10
    assert len({masks.kept() for masks in left.values()}) == 1


class Smooth(nn.Module):
    """Two convolutions with a BatchNorm and a linear layer; nothing has a kink."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.second(torch.tanh(self.norm(self.first(x)))).mean((2, 3)))


NAMES = ("first.weight", "second.weight", "head.weight")


def smooth_case():
    torch.manual_seed(0)
    x = torch.randn(8, 3, 6, 6, dtype=torch.float64)
    return randomise(Smooth(), x.float()).double().eval(), x, torch.arange(8) % 2


def test_a_connections_sensitivity_is_the_gradient_of_its_gate():
    """By finite differences of the loss, the weight times 1 + h and 1 - h."""
    model, x, labels = smooth_case()
    found = sensitivities(model, NAMES, partial(cross_entropy, x, labels))
    h = 1e-5
    for name in NAMES:
        for i in (0, found[name].numel() // 2, found[name].numel() - 1):
            losses = []
            for gate in (1 + h, 1 - h):
                gated = copy.deepcopy(model)
                gated.get_parameter(name).data.view(-1)[i] *= gate
                losses.append(next(cross_entropy(x, labels, gated)).item())
            slope = abs(losses[0] - losses[1]) / (2 * h)
            assert float(found[name].flatten()[i]) == pytest.approx(slope, rel=1e-5, abs=1e-10)


def test_batches_count_as_one_large_batch():
    """|w| times the whole gradient by autograd: gradients cancel between batches before the absolute value."""
    model, x, labels = smooth_case()
    model.requires_grad_(True)
    next(cross_entropy(x, labels, model)).backward()
    parts = sensitivities(model, NAMES, partial(cross_entropy, x, labels, parts=4))
    for name in NAMES:
        weight = model.get_parameter(name)
        torch.testing.assert_close(parts[name] / 4, (weight * weight.grad).abs().detach())


def test_one_threshold_goes_over_convolutions_and_linear_layers():
    model, x, labels = smooth_case()
    calibration = partial(cross_entropy, x, labels)
    scores = sensitivities(model, NAMES, calibration)
    masks = masks_by("snip", model, Selection(0.7), calibration=calibration)
    assert set(masks) == set(NAMES)
    pooled = torch.cat([score.flatten() for score in scores.values()])
    kept = torch.cat([masks[name].flatten() for name in NAMES])
    assert int(kept.sum()) == len(pooled) - int(len(pooled) * 0.7)
    assert float(pooled[kept].min()) > float(pooled[~kept].max())
    for method in ("snip", "synflow"):
        options = get_method(method).options(linear=False)
        found = masks_by(method, model, Selection(0.7), options, calibration=calibration, example=x[:1])
        assert set(found) == set(NAMES[:2])


@pytest.mark.parametrize("method", METHODS)
def test_the_control_keeps_each_layers_share_and_no_choice(method):
    torch.manual_seed(0)
    model, x = residual_network(), torch.randn(8, 3, 16, 16)
    entry = get_method(method)
    terms = {"example": x[:1], "calibration": partial(cross_entropy, x, torch.arange(8) % 5)}
    chosen = masks_by(method, model, Selection(0.8), **terms)
    shuffled, again, other = (
        masks_by(method, model, Selection(0.8), entry.options(shuffle=True), **terms, seed=seed) for seed in (1, 1, 2)
    )
    for name, mask in chosen.items():
        assert int(shuffled[name].sum()) == int(mask.sum())
        assert torch.equal(shuffled[name], again[name])
    assert len({float(mask.double().mean()) for mask in chosen.values()}) > 1  # the shares differ by layer
    for mine, others in ((chosen, shuffled), (shuffled, other)):
        assert not torch.equal(mine["conv1.weight"], others["conv1.weight"])


@pytest.mark.parametrize("method", ["snip", "synflow"])
def test_a_blank_network_is_not_run(method):
    """A plan ahead of any run asks for the counts alone: no data, 100 passes spared."""

    class Blank(ThreeConvs):
        def forward(self, x):
            raise AssertionError

    entry = get_method(method)
    request = Request([], Selection(0.5), entry.options(), 0, example=torch.zeros(1, 1, 2, 2), blank=True)
    assert entry.sketch(Blank(), request).masks.kept() == 6


@pytest.mark.parametrize("method", ["snip", "synflow"])
@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection((0.1, 0.2)), "no ratio by stage"),
        (Selection(0.5, round_to=8), "no `round_to`"),
        (Selection(0.5, skip=("fc",)), "no convolution or linear layer matches 'fc'; there are: conv1, conv2, conv3"),
        (Selection(0.5, layers={"conv1": 0.1}), "leave out `layers`"),
        (Selection(0.9), "2 weights cannot be kept: there are 11 in 3 layers"),
    ],
)
def test_what_has_no_meaning_is_refused(method, selection, message):
    x = torch.ones(2, 1, 2, 2)

    def calibration(model):
        yield model(x).square().mean()

    with pytest.raises(ValueError, match=message):
        masks_by(method, ThreeConvs(), selection, example=x[:1], calibration=calibration)


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="snip needs calibration data"):
        masks_by("snip", ThreeConvs(), Selection(0.5))
    for calibration in (lambda model: [], lambda model: [torch.zeros(())]):
        with pytest.raises(ValueError, match="ran no batch, or its loss depends on none of the weights"):
            masks_by("snip", ThreeConvs(), Selection(0.5), SnipOptions(), calibration=calibration)
    with pytest.raises(ValueError, match="needs an example input"):
        masks_by("synflow", ThreeConvs(), Selection(0.5))
    with pytest.raises(ValueError, match="rounds=0 must be at least 1"):
        SynflowOptions(rounds=0)
