"""Group Fisher pruning: importance against single images and finite differences, savings against cut networks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from support.reference import state_hash
from support.small_networks import Plain, dense_network, randomise
from torch import nn
from torchvision.ops import SqueezeExcitation

from classify.models import build
from pruning.cost import count_activations, count_macs
from pruning.cut import Arch, prune
from pruning.graph.groups import find_groups
from pruning.graph.layers import is_depthwise
from pruning.methods import METHODS
from pruning.methods.group_fisher import GroupFisherOptions, importances
from pruning.methods.method import Request
from pruning.narrowing import ChannelSlices, Narrowing, Savings
from pruning.plan import PruningPlan
from pruning.select import Selection, counts, eligible
from pruning.surgery import apply, mask


class Separable(nn.Module):
    """A depthwise convolution between two others, with or without a squeeze-excitation gate behind it."""

    def __init__(self, *, gate):
        super().__init__()
        self.stem, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.gate = SqueezeExcitation(8, 4) if gate else nn.Identity()
        self.project, self.norm3 = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        y = F.relu(self.norm2(self.depthwise(F.relu6(self.norm1(self.stem(x))))))
        return self.head(F.relu(self.norm3(self.project(self.gate(y)))).mean((2, 3)))


def projecting_network():
    """ResNet-18 of an eighth of its width, whose shortcuts compute the channels that stages add up."""
    return build("imagenet_resnet", 5, {"depth": 18, "width": 0.125})


NETWORKS = {
    "plain": (Plain, 8),
    "residual": (projecting_network, 32),
    "dense": (dense_network, 32),
    "depthwise": (lambda: Separable(gate=False), 8),
    "squeeze-excitation": (lambda: Separable(gate=True), 8),
}
every_network = pytest.mark.parametrize("network", NETWORKS)


class Case:
    """A network in evaluation mode, what can be pruned of it, and five labelled images in batches of 3 and 2."""

    def __init__(self, network, *, double=False):
        build, side = NETWORKS[network]
        torch.manual_seed(0)
        self.x, self.labels = torch.randn(5, 3, side, side), torch.arange(5)
        self.model = randomise(build(), self.x)
        self.groups = [group for group in find_groups(self.model, self.x[:1]) if not group.fixed]
        if double:
            self.model, self.x = self.model.double(), self.x.double()

    def calibration(self, model):
        for x, y in zip(self.x.split(3), self.labels.split(3), strict=True):
            yield F.cross_entropy(model(x), y)

    def prune(self, options=None, *, calibration=True, **selection):
        return prune(
            self.model,
            Arch("net", {}),
            self.groups,
            "group_fisher",
            Selection(**selection),
            batch=self.x[:2],
            options=options,
            calibration=self.calibration if calibration else None,
        )


def slope(model, group, channel, x, label, h=1e-6):
    """dL_n/dm of one image by central differences: what each layer reads of the channel, times 1 + h and 1 - h."""
    losses = []
    for factor in (1 + h, 1 - h):
        handles = []
        for member in group.members:
            layer = dict(model.named_modules())[member.layer]
            if isinstance(layer, nn.Conv2d | nn.Linear) and (member.side == "in" or is_depthwise(layer)):

                def scale(module, inputs, places=member.positions[channel], factor=factor):
                    read = inputs[0].clone()
                    read[:, list(places)] *= factor  # all readers here have their channels on axis 1
                    return (read,)

                handles.append(layer.register_forward_pre_hook(scale))
        with torch.no_grad():
            losses.append(float(F.cross_entropy(model(x[None]), label[None])))
        for handle in handles:
            handle.remove()
    return (losses[0] - losses[1]) / (2 * h)


@every_network
def test_importance_is_the_sum_of_single_images_squares(network):
    case = Case(network, double=True)
    found = importances(copy.deepcopy(case.model).requires_grad_(False), case.groups, case.calibration)
    for group in case.groups:
        for channel in (0, group.width - 1):
            slopes = [slope(case.model, group, channel, x, y) for x, y in zip(case.x, case.labels, strict=True)]
            expected = sum(value**2 for value in slopes)
            assert float(found[group.name][channel]) == pytest.approx(expected, rel=1e-4, abs=1e-16), group.name


def test_layers_that_a_shortcut_couples_act_together():
    """Between norms and readers there are only sums and ReLUs: to scale what is computed is to scale what is read."""
    case = Case("residual", double=True)
    (group,) = [g for g in case.groups if "layer2.0.conv2" in g.producers]
    assert len(group.norms) == len(group.producers) > 1
    h, expected = 1e-6, 0.0
    for x, y in zip(case.x, case.labels, strict=True):
        losses = []
        for factor in (1 + h, 1 - h):
            scaled = copy.deepcopy(case.model)
            with torch.no_grad():
                for norm, _ in group.norms:
                    scaled.get_submodule(norm).weight[3] *= factor
                    scaled.get_submodule(norm).bias[3] *= factor
                losses.append(float(F.cross_entropy(scaled(x[None]), y[None])))
        expected += ((losses[0] - losses[1]) / (2 * h)) ** 2
    found = importances(case.model.requires_grad_(False), [group], case.calibration)[group.name][3]
    assert float(found) == pytest.approx(expected, rel=1e-4)


@every_network
def test_savings_are_those_of_the_cut_network(network):
    """Three channels of each group go, one after the other; each saving is counted in the smaller network."""
    case = Case(network)
    savings = Savings(case.model, case.groups, case.x)
    keep = {group.name: tuple(range(group.width)) for group in case.groups}
    widths = {group.name: group.width for group in case.groups}
    before = count_macs(case.model, case.x[:1]), count_activations(case.model, case.x[:1])
    for group in [*case.groups, *case.groups, *case.groups]:
        asked = savings.of(group.name)
        savings.remove(group.name)
        keep[group.name] = keep[group.name][1:]
        small = apply(case.model, PruningPlan("net", {}, keep, widths), case.groups)
        after = count_macs(small, case.x[:1]), count_activations(small, case.x[:1])
        assert asked == (before[0] - after[0], before[1] - after[1]), group.name
        before = after


def two_layers():
    """1x1 convolutions on 2 x 2 maps, 1 -> 3 -> 2 -> 1: a channel of the first saves 4 * (1 + 2) MACs, of the second
    4 * (3 + 1), and each 4 activations.
    """
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(2, 1, 1))
    return model, find_groups(model, torch.zeros(1, 1, 2, 2))


def narrowing(price, ratio, level="global"):
    model, groups = two_layers()
    return Narrowing(model, groups, Selection(ratio=ratio, level=level), example=torch.zeros(1, 1, 2, 2), price=price)


def test_the_least_important_for_what_it_saves_goes():
    importance = {"0": torch.tensor([3.0, 1.0, 9.0]), "1": torch.tensor([1.2, 8.0])}
    # 1 / 12 against 1.2 / 16
    assert narrowing("macs", 0.2).next(importance, 1) == {"1": [0]}
    assert narrowing("memory", 0.2).next(importance, 1) == narrowing("none", 0.2).next(importance, 1) == {"0": [1]}


def test_savings_are_counted_in_the_network_that_is_left():
    """With "1" narrowed a channel of "0" saves 4 * (1 + 1): 1.3 / 8 is more than the 1.3 / 12 of before."""
    found = narrowing("macs", 0.6)
    assert found.to_go == 3
    assert found.next({"0": torch.tensor([2.0, 1.3, 9.0]), "1": torch.tensor([1.2, 8.0])}, 1) == {"1": [0]}
    assert found._savings.of("0") == (8, 4)
    assert found.next({"0": torch.tensor([2.0, 1.3, 9.0]), "1": torch.tensor([1.2, 8.0])}, 9) == {"0": [1, 0]}
    assert found.to_go == 0 and found.keep() == {"0": (2,), "1": (1,)}


def test_of_equals_the_last_goes_and_no_layer_is_emptied():
    ones = {"0": torch.ones(3), "1": torch.ones(2)}
    assert narrowing("none", 0.6).next(ones, 9) == {"1": [1], "0": [2, 1]}
    assert narrowing("none", 0.4, level="layer").next(ones, 9) == {"1": [1], "0": [2, 1]}
    with pytest.raises(ValueError, match=r"highest that leaves one in each is 0\.6"):
        narrowing("none", 0.8)


def test_importance_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="the importance of a channel of 1 is not a number"):
        narrowing("none", 0.4).next({"0": torch.ones(3), "1": torch.tensor([1.0, torch.nan])}, 1)


@every_network
def test_zeroed_slices_are_the_masked_network(network):
    case = Case(network)
    zeroed, plan = copy.deepcopy(case.model), {}
    for group in case.groups:
        slices = ChannelSlices.of(zeroed, group)
        slices.zero([0, 2])
        assert slices.zeros().nonzero().flatten().tolist() == [0, 2]
        plan[group.name] = tuple(c for c in range(group.width) if c not in (0, 2))
    expected = mask(case.model, PruningPlan("net", {}, plan, {g.name: g.width for g in case.groups}), case.groups)
    for name, tensor in zeroed.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name


@every_network
@pytest.mark.parametrize("level", ["layer", "global"])
def test_the_asked_number_goes_whatever_the_rounds(network, level):
    case = Case(network)
    for rounds in (1, 3):
        pruned = case.prune(GroupFisherOptions(rounds=rounds, by="macs"), ratio=0.4, scope="all", level=level)
        kept = {name: len(channels) for name, channels in pruned.plan.keep.items()}
        if level == "layer":
            assert kept == counts(case.groups, Selection(ratio=0.4))
        width = sum(group.width for group in case.groups)
        assert level == "layer" or sum(kept.values()) == width - int(0.4 * width)
        assert min(kept.values()) >= 1 and pruned.difference <= 1e-4


def test_channels_that_are_zero_go_first_and_need_no_data():
    case = Case("plain")
    gone = {"0": [1, 3], "4": [0, 7, 9], "9": [2, 4, 5]}
    for group in case.groups:
        ChannelSlices.of(case.model, group).zero(gone[group.name])
    pruned = case.prune(ratio=0.25, calibration=False)
    assert {name: sorted(set(range(w)) - set(pruned.plan.keep[name])) for name, w in pruned.plan.widths.items()} == gone
    with pytest.raises(ValueError, match="group_fisher needs calibration data"):
        case.prune(ratio=0.5, calibration=False)
    more = case.prune(ratio=0.5)
    assert all(not set(channels) & set(more.plan.keep[name]) for name, channels in gone.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "flops"}, "by 'flops' is unknown; choices: memory, macs, none"),
        ({"rounds": 0}, "rounds=0 must be at least 1"),
        ({"every": 0}, "every=0 must be at least 1"),
        ({"at_once": 0}, "at_once=0 must be at least 1"),
        ({"start": 0.6, "until": 0.5}, "start=0.6 and until=0.5"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GroupFisherOptions(**options)


class Training:
    """Steps of a network in training mode with the effect, as the loops take them; momentum and weight decay on."""

    def __init__(self, network="plain", *, steps, options=None, **selection):
        self.case = Case(network)
        selection = Selection(**selection)
        groups = eligible(self.case.groups, selection)
        options = options or GroupFisherOptions(every=2)
        self.request = Request(groups, selection, options, seed=0, example=self.case.x[:1])
        self.model = self.case.model.train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        self.effect = METHODS["group_fisher"].training_effect(self.model, self.request)
        self.effect.plan_for(steps, self.optimizer)

    def gone(self):
        left = self.effect._narrowing.left
        return {name: (~mask).nonzero().flatten().tolist() for name, mask in left.items() if not mask.all()}

    def take(self, steps, *, first=True):
        if first:
            self.effect.at_start()
        for _ in range(steps):
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(self.case.x), self.case.labels).backward()
            self.effect.after_backward()
            self.optimizer.step()
            self.effect.after_step(0.05)
        return self


@every_network
def test_pruning_cuts_what_training_removed_and_nothing_else(network):
    training = Training(network, steps=12, options=GroupFisherOptions(every=2, by="macs"), ratio=0.4, level="global")
    training.take(12)
    gone, groups = training.gone(), training.request.groups
    assert sum(map(len, gone.values())) == int(0.4 * sum(group.width for group in groups))
    pruned = training.case.prune(GroupFisherOptions(by="macs"), calibration=False, ratio=0.4, level="global")
    cut = {name: sorted(set(range(w)) - set(pruned.plan.keep[name])) for name, w in pruned.plan.widths.items()}
    assert {name: channels for name, channels in cut.items() if channels} == gone
    # the network that trained is the small one already
    x = torch.randn_like(training.case.x)
    with torch.no_grad():
        torch.testing.assert_close(training.model.eval()(x), pruned.model.eval()(x), rtol=1e-4, atol=1e-5)


def test_channels_go_in_the_second_half_as_many_at_a_time_as_it_takes():
    """16 steps, removals after steps 10, 12, 14 and 16: of 12 channels of 30 (0.4 of each layer) 3 each time."""
    training = Training(steps=16, ratio=0.4)
    assert training.effect._narrowing.to_go == 4 + 5 + 4
    counted = []
    for step in range(16):
        training.take(1, first=step == 0)
        counted.append(sum(map(len, training.gone().values())))
    assert counted == [0] * 9 + [4, 4, 7, 7, 10, 10, 13]


def test_importance_is_gathered_over_the_steps_between_two_removals():
    """The sum over both steps and all images, at the weights of each step; weights do not move at a rate of zero."""
    training = Training("residual", steps=8, options=GroupFisherOptions(every=2, start=0.0), ratio=0.1)
    training.optimizer.param_groups[0]["lr"] = 0.0
    training.model.eval()  # so that images do not depend on each other
    training.take(1)
    frozen = copy.deepcopy(training.case.model).requires_grad_(False)
    for module in frozen.modules():
        module._forward_pre_hooks.clear()
    once = importances(
        frozen, training.request.groups, lambda model: [F.cross_entropy(model(training.case.x), training.case.labels)]
    )
    expected = torch.cat([once[group.name] for group in training.request.groups])
    torch.testing.assert_close(training.effect._importance, expected)
    training.take(1, first=False)
    assert not training.effect._importance.any() and training.gone()


def test_what_is_removed_stays_zero_in_all_that_belongs_to_it():
    training = Training("squeeze-excitation", steps=16, options=GroupFisherOptions(every=2, start=0.25), ratio=0.4)
    training.take(6)
    early = training.gone()
    training.take(10, first=False)
    assert early and all(set(channels) <= set(training.gone()[name]) for name, channels in early.items())
    for group in training.request.groups:
        zeros = ChannelSlices.of(training.model, group).zeros().nonzero().flatten().tolist()
        assert zeros == training.gone().get(group.name, [])


def test_a_killed_training_ends_with_the_same_bits():
    """Stopped in between two removals, in the middle of gathering."""
    whole = Training("residual", steps=20, ratio=0.3).take(20)
    first = Training("residual", steps=20, ratio=0.3).take(15)
    assert 0 < sum(map(len, first.gone().values())) < sum(map(len, whole.gone().values()))
    second = Training("residual", steps=20, ratio=0.3)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.effect.load_state_dict(copy.deepcopy(first.effect.state_dict()))
    second.take(5, first=False)
    assert second.gone() == whole.gone()
    assert state_hash(second.model.state_dict()) == state_hash(whole.model.state_dict())


def test_hooks_are_on_the_network_only_while_importance_is_gathered():
    training = Training(steps=12, options=GroupFisherOptions(every=2, until=0.75), ratio=0.4)

    def hooks():
        return sum(len(module._forward_pre_hooks) for module in training.model.modules())

    found = []
    for step in range(12):
        found.append(hooks())
        training.take(1, first=step == 0)
    assert [bool(n) for n in found] == [False] * 6 + [True] * 2 + [False] * 4
    assert not hooks()


def test_frozen_layers_are_judged_too():
    """As the first stages of a detector: their channels go, and nothing that stays of them changes."""
    training = Training("residual", steps=8, options=GroupFisherOptions(every=2, start=0.0), ratio=0.4, level="global")
    for name in ("conv1", "bn1", "layer1"):
        training.model.get_submodule(name).requires_grad_(False)
    before = training.model.layer1[0].conv1.weight.clone()
    training.take(8)
    left = training.effect._narrowing.left["layer1.0.conv1"]
    assert int((~left).sum()) > 0
    assert torch.equal(training.model.layer1[0].conv1.weight[left], before[left])


def test_gradients_that_overflow_are_left_out():
    training = Training(steps=4, options=GroupFisherOptions(every=4, start=0.0), ratio=0.4)
    training.take(1)
    before = training.effect._importance.clone()
    (torch.inf * F.cross_entropy(training.model(training.case.x), training.case.labels)).backward()
    training.effect.after_backward()
    assert torch.equal(training.effect._importance, before) and bool(before.any())


def test_a_training_too_short_for_the_removals_is_refused():
    """13 channels one at a time, one every 5 steps in half of the training, are 130 steps."""
    with pytest.raises(ValueError, match=r"has 2 removals, .* 13 channels take 13 of them, which are 129 steps"):
        Training(steps=20, options=GroupFisherOptions(every=5, at_once=1), ratio=0.4)
    with pytest.raises(ValueError, match=r"has 0 removals, .* take 1 of them, which are 9 steps"):
        Training(steps=8, options=GroupFisherOptions(every=5), ratio=0.4)
    Training(steps=9, options=GroupFisherOptions(every=5), ratio=0.4)
    Training(steps=129, options=GroupFisherOptions(every=5, at_once=1), ratio=0.4)
