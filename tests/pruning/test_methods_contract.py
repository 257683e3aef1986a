"""What every entry of METHODS promises, on a plain, a residual and a dense network; new methods are included.

A method whose counts do not follow from the ratio layer by layer needs a line in ASKED, one that needs options a line
in `options_of`.
"""

import copy
from dataclasses import dataclass, fields, replace
from functools import cache, partial

import pytest
import torch
import torch.nn.functional as F
from support.reference import state_hash
from support.small_networks import Plain, dense_network, randomise, residual_network
from torch import nn

from pruning.cut import Arch, prune
from pruning.design.pattern import Pattern
from pruning.design.widths_and_masks import free_places
from pruning.graph.blocks import residual_blocks
from pruning.graph.groups import find_groups
from pruning.graph.norm_channels import eligible_units, norm_channels
from pruning.methods import METHODS
from pruning.methods.guided import GuidedOptions
from pruning.methods.soft_filter import filters_to_keep, find_filters
from pruning.plan import PruningPlan
from pruning.select import Selection, count_left, count_to_keep, counts, eligible
from pruning.surgery import apply

NETWORKS = {"plain": (Plain, 8), "residual": (residual_network, 16), "dense": (dense_network, 32)}
RATIO = 0.4


@dataclass(frozen=True)
class Case:
    """A network with weights, its groups, and labelled images that serve as calibration data."""

    model: nn.Module
    groups: list
    x: torch.Tensor
    labels: torch.Tensor

    def calibration(self, model):
        """The losses of two batches."""
        for x, y in zip(self.x.chunk(2), self.labels.chunk(2), strict=True):
            yield F.cross_entropy(model(x), y)


@cache
def make_case(network, *, tied=False):
    """The named network with random weights, or with all weights of a layer equal so that every score is tied."""
    build, side = NETWORKS[network]
    torch.manual_seed(0)
    x = torch.randn(12, 3, side, side)
    model = randomise(build(), x)
    if tied:
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                nn.init.constant_(module.weight, 0.5 / max(1, module.weight[0].numel()))
                if module.bias is not None:
                    nn.init.constant_(module.bias, 0.1)
    return Case(model, find_groups(model, x[:1], stages=("layer1", "layer2", "layer3")), x, torch.arange(12) % 5)


@pytest.fixture(scope="module")
def options_of(tmp_path_factory):
    """Options of the methods that cannot do without."""
    pattern = tmp_path_factory.mktemp("pattern") / "pattern.json"
    pattern.write_text(Pattern(widths=(0.5,)).to_json(), encoding="utf-8")
    return {"guided": GuidedOptions(patterns=(str(pattern),))}


@pytest.fixture(scope="module")
def usual(options_of):
    """What a method makes of a network at RATIO, by their names: found once, for all tests that only look at it."""
    found = cache(lambda method, network, tied: run(make_case(network, tied=tied), method, options_of))
    return lambda method, network, tied=False: found(method, network, tied)


def run(case, method, options_of, *, ratio=RATIO, seed=0):
    return prune(
        case.model,
        Arch("net", {}),
        case.groups,
        method,
        Selection(ratio=ratio),
        batch=case.x[:4],
        seed=seed,
        options=options_of.get(method),
        calibration=case.calibration,
    )


def output(model, x):
    with torch.no_grad():
        return model.eval()(x)


def state_of(pruned):
    return state_hash(pruned.model.state_dict()), state_hash(dict(pruned.masks)), pruned.plan


every_method = pytest.mark.parametrize("method", METHODS)
every_network = pytest.mark.parametrize("network", NETWORKS)


@every_network
@every_method
def test_choice_depends_on_weights_data_and_seed_only(method, network, options_of, usual):
    first = state_of(usual(method, network))
    torch.manual_seed(99)  # the global generator has no say
    assert state_of(run(make_case(network), method, options_of)) == first


@every_network
@every_method
def test_model_is_not_changed(method, network, options_of):
    case = make_case(network)
    model = replace(case, model=copy.deepcopy(case.model).train()).model
    model.get_submodule(case.groups[0].name).eval()
    model.get_submodule(case.groups[0].name).weight.requires_grad_(False)

    def facts():
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
        modes = [m.training for m in model.modules()]
        parameters = [(p.requires_grad, p.grad) for p in model.parameters()]
        return state_hash(model.state_dict()), hooks, modes, parameters, [type(m) for m in model.modules()]

    before = facts()
    run(replace(case, model=model), method, options_of)
    assert facts() == before


def kept_by_layer(pruned):
    """Channels left by the layer that loses them."""
    tables = [pruned.plan.keep, pruned.plan.scatter, pruned.plan.select]
    return {name: len(kept) for table in tables for name, kept in table.items()}


def asked_by_layer(case, _):
    return counts(eligible(case.groups, Selection(ratio=RATIO)), Selection(ratio=RATIO))


def asked_of_places(case, pruned):
    """One share of the network's channels, inputs that layers select among them: the total is exact."""
    places = free_places(case.model, case.groups, Selection())
    kept = 0
    for place in places:
        table, name = (pruned.plan.select, place.readers[0]) if place.readers else (pruned.plan.keep, place.unit.name)
        kept += len(table.get(name, range(place.unit.width)))
    assert kept == count_left(sum(place.unit.width for place in places), RATIO)
    return kept_by_layer(pruned)


def asked_of_weights(case, pruned, kinds=nn.Conv2d):
    weights = {f"{n}.weight": m.weight for n, m in case.model.named_modules() if isinstance(m, kinds)}
    assert pruned.masks.keys() == weights.keys()
    kept = sum(int(mask.sum()) for mask in pruned.masks.values())
    assert kept == count_left(sum(w.numel() for w in weights.values()), RATIO)
    assert all(int((pruned.model.get_parameter(n) != 0).sum()) == int(m.sum()) for n, m in pruned.masks.items())
    return {}


def asked_of_each_layers_weights(case, pruned):
    for name, mask in pruned.masks.items():
        assert int(mask.sum()) == count_to_keep(case.model.get_parameter(name).numel(), RATIO)
    assert len(pruned.masks) == sum(isinstance(m, nn.Conv2d) for m in case.model.modules())
    return {}


def asked_of_scales(case, pruned):
    """One ranking over the channels of every BatchNorm that a network can lose, trunks included where inputs select."""
    found = norm_channels(case.model, case.groups)
    units = [g.name for g in eligible(eligible_units(found, case.groups, method="any"), Selection())]
    left = {}
    for item in found:
        if item.unit.name in units:
            table, name = (pruned.plan.select, item.readers[0]) if item.readers else (pruned.plan.keep, item.unit.name)
            left[item.unit.name] = len(table.get(name, range(item.unit.width)))
    width = sum(item.unit.width for item in found if item.unit.name in units)
    assert sum(left.values()) == count_left(width, RATIO)
    return kept_by_layer(pruned)


def asked_of_blocks_or_scales(case, pruned):
    blocks = residual_blocks(case.model)
    if not blocks:
        return asked_of_scales(case, pruned)
    assert len(pruned.plan.drop) == len(blocks) - count_to_keep(len(blocks), RATIO)
    return {}


def asked_of_filters(case, pruned):
    """The stem and what a shortcut adds up lose filters too; the count removed is rounded down."""
    norms = find_filters(case.model)
    asked = {}
    for name, norm in norms.items():
        width = len(case.model.get_parameter(f"{name}.weight"))
        asked[name if name in pruned.plan.keep else norm or name] = filters_to_keep(width, RATIO)
    return asked


ASKED = {
    "guided": asked_of_places,
    "uniform": asked_of_places,
    "magnitude": asked_of_weights,
    "lottery": asked_of_weights,
    "lamp": asked_of_weights,
    "snip": partial(asked_of_weights, kinds=nn.Conv2d | nn.Linear),
    "synflow": partial(asked_of_weights, kinds=nn.Conv2d | nn.Linear),
    "rigl": asked_of_weights,
    "gradual_magnitude": asked_of_each_layers_weights,
    "uniform_weights": asked_of_each_layers_weights,
    "slimming": asked_of_scales,
    "structure_selection": asked_of_blocks_or_scales,
    "soft_filter": asked_of_filters,
}


@pytest.mark.parametrize("tied", [False, True], ids=["random", "tied"])
@every_network
@every_method
def test_achieved_counts_are_those_asked(method, network, tied, usual):
    case, pruned = make_case(network, tied=tied), usual(method, network, tied)
    assert kept_by_layer(pruned) == ASKED.get(method, asked_by_layer)(case, pruned)


@every_network
@every_method
def test_ratio_zero_is_the_identity(method, network, options_of):
    case = make_case(network)
    pruned = run(case, method, options_of, ratio=0.0)
    assert all(bool(mask.all()) for mask in pruned.masks.values())
    assert pruned.plan.drop == ()
    assert state_hash(pruned.model.state_dict()) == state_hash(case.model.state_dict())
    assert torch.equal(output(pruned.model, case.x), output(case.model, case.x))


@every_network
@every_method
def test_zeroed_network_equals_the_smaller_one(method, network, usual):
    case, pruned = make_case(network), usual(method, network)
    assert pruned.difference <= 1e-4
    before, after = output(case.model, case.x), output(pruned.model, case.x)
    assert (before - after).abs().max() > 1e-3 * before.abs().max()  # something was removed


@every_network
@every_method
def test_plan_and_weights_rebuild_the_network_and_its_training(method, network, usual):
    """Through JSON, on another instance; then two steps in one go equal one, a reload, and another."""
    case, pruned = make_case(network), usual(method, network)

    def restored(state):
        plan = PruningPlan.from_json(pruned.plan.to_json())
        fresh = apply(NETWORKS[network][0](), plan, case.groups)
        fresh.load_state_dict(state)  # strict
        return fresh

    assert torch.equal(output(restored(pruned.model.state_dict()), case.x), output(pruned.model, case.x))

    one_go = restored(pruned.model.state_dict())
    optimiser = make_optimiser(one_go)
    loss = train_step(one_go, optimiser, case)
    reloaded = restored(one_go.state_dict())
    resumed = make_optimiser(reloaded)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert train_step(one_go, optimiser, case) == train_step(reloaded, resumed, case) != loss
    assert state_hash(one_go.state_dict()) == state_hash(reloaded.state_dict())
    assert state_hash(one_go.state_dict()) != state_hash(pruned.model.state_dict())


def make_optimiser(model):
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def train_step(model, optimiser, case):
    model.train()
    optimiser.zero_grad()
    loss = F.cross_entropy(model(case.x), case.labels)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    optimiser.step()
    return loss.item()


# by design blind to what the channels compute
BLIND = ("random",)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in BLIND])
def test_permuted_channels_permute_the_choice(method, options_of, usual):
    """The second convolution's channels in another order, in every tensor they run through: the same function."""
    case = make_case("plain")
    group = next(g for g in case.groups if g.name == "4")
    order = torch.randperm(group.width, generator=torch.Generator().manual_seed(1))
    model = copy.deepcopy(case.model)
    for member in group.members:
        places = torch.tensor([member.positions[c] for c in order]).flatten()
        layer = model.get_submodule(member.layer)
        for key, tensor in layer.state_dict(keep_vars=True).items():
            if member.side == "in" and key == "weight":
                tensor.data = tensor.data[:, places]
            elif member.side == "out" and tensor.ndim:
                tensor.data = tensor.data[places]
    assert torch.allclose(output(model, case.x), output(case.model, case.x), atol=1e-5)

    kept = usual(method, "plain").plan.keep
    moved = run(replace(case, model=model), method, options_of).plan.keep
    assert kept.keys() == moved.keys()
    if "4" in kept:
        assert tuple(sorted(order[list(moved["4"])].tolist())) == kept["4"] != moved["4"]
        assert kept["0"] == moved["0"]


@every_network
def test_seed_changes_the_random_choice(network, options_of):
    case = make_case(network)
    for method in ("random", "uniform_weights"):
        assert state_of(run(case, method, options_of, seed=1)) != state_of(run(case, method, options_of, seed=2))


@every_method
def test_what_a_method_says_of_its_options_is_so(method):
    """Studies read these promises instead of asking which method they have."""
    entry = METHODS[method]
    names = {option.name for option in fields(entry.options)}
    assert entry.follows_patterns == ("patterns" in names)
    assert entry.continues_masks == ("masks" in names)
    assert entry.sets_amount(entry.options()) == "selection"
    if "budget" in names:
        assert entry.sets_amount(entry.options(budget={"params": 0.5})) == "options"
    if "zeros_only" in names:
        assert entry.sets_amount(entry.options(zeros_only=True)) == "training"
