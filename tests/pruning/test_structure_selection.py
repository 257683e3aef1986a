"""Sparse structure selection: the optimiser of the scales, where they live, and the blocks that go."""

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from support.digits_training import accuracy, small_vgg, train_on_digits
from support.small_networks import Plain, randomise, residual_network
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

from classify.models import build
from classify.models.preresnet import PreResNet, PreResNetShape
from pruning.cut import Arch, prune
from pruning.graph.blocks import branch_end, residual_blocks
from pruning.graph.groups import find_groups
from pruning.methods.structure_selection import (
    StructureEffect,
    StructureOptions,
    accelerated_step,
    branch_scale,
    soft_threshold,
)
from pruning.select import Selection


def structure(model, x, ratio=0.5, *, selection=None, **options):
    groups = find_groups(model, x[:1])
    selection = selection or Selection(ratio=ratio)
    options = StructureOptions(**options)
    return prune(model, Arch("test", {}), groups, "structure_selection", selection, batch=x, seed=0, options=options)


def zero_branch(model, block):
    layer = model.get_submodule(branch_end(model, block))
    for parameter in layer.parameters():
        parameter.data.zero_()


def steps(model, effect, n, *, lr=0.05, seed=0):
    """`n` steps of SGD with momentum and weight decay on random images; returns the optimiser."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-3)
    return go_on(model, effect, optimizer, n, lr=lr, seed=seed)


def go_on(model, effect, optimizer, n, *, lr=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        x = torch.randn(4, 3, 16, 16, generator=generator)
        loss = F.cross_entropy(model.train()(x), torch.tensor([0, 1, 2, 3]))
        optimizer.zero_grad()
        loss.backward()
        effect.after_backward()
        optimizer.step()
        effect.after_step(lr)
    return optimizer


def test_soft_threshold_by_hand():
    x = torch.tensor([-2.0, -0.25, 0.0, 0.25, 2.0])
    assert soft_threshold(x, 0.5).tolist() == [-1.5, 0, 0, 0, 1.5]


def test_accelerated_step_by_hand():
    # z = soft(1 - 0.5 * 0.5, 0.5 * 0.5) = 0.5; v = 0.5 - 1 + 0.5 * 0.25 = -0.375; scale = 0.5 - 0.5 * 0.375
    scale, velocity = accelerated_step(
        torch.tensor(1.0), torch.tensor(0.5), torch.tensor(0.25), lr=0.5, strength=0.5, momentum=0.5
    )
    assert (float(scale), float(velocity)) == (0.3125, -0.375)


def test_scales_reach_exact_zero_where_sgd_with_l1_does_not():
    """Least squares to (1, 0.02, -0.03, 0) with an L1 term of 0.1: the last three belong at zero."""
    target = torch.tensor([1.0, 0.02, -0.03, 0.0])
    lr, strength, momentum = 0.1, 0.1, 0.9
    scale, velocity = torch.ones(4), torch.zeros(4)
    plain, carried = torch.ones(4), torch.zeros(4)
    for _ in range(400):
        scale, velocity = accelerated_step(scale, scale - target, velocity, lr=lr, strength=strength, momentum=momentum)
        carried = momentum * carried + (plain - target) + strength * plain.sign()
        plain = plain - lr * carried
    assert scale[1:].tolist() == [0, 0, 0]
    assert float(scale[0]) == pytest.approx(0.9, abs=1e-4)
    assert bool((plain != 0).all())


class ExplicitScale(nn.Module):
    """The same layer with the scale as a parameter of its own, as in the paper."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.layer(x)


@pytest.mark.parametrize(
    ("name", "options"), [("cifar_resnet", {"depth": 8, "width": 0.25}), ("cifar_preresnet", {"depth": 11})]
)
def test_folded_scales_train_as_explicit_ones(name, options):
    torch.manual_seed(0)
    folded = build(name, 4, options)
    explicit = copy.deepcopy(folded)
    ends = [branch_end(explicit, block) for block in residual_blocks(explicit)]
    for end in ends:
        block, _, leaf = end.rpartition(".")
        setattr(explicit.get_submodule(block), leaf, ExplicitScale(explicit.get_submodule(end)))
    effect = StructureEffect(folded, StructureOptions(strength=0.05))
    effect.at_start()
    steps(folded, effect, 5)

    class PaperUpdate:
        velocity = {end: torch.zeros(()) for end in ends}  # noqa: RUF012

        def after_backward(self):
            for end in ends:
                layer = explicit.get_submodule(end)
                layer.gradient, layer.scale.grad = layer.scale.grad, None  # not for SGD

        def after_step(self, lr):
            for end in ends:
                layer = explicit.get_submodule(end)
                layer.scale.data, self.velocity[end] = accelerated_step(
                    layer.scale.data, layer.gradient, self.velocity[end], lr=lr, strength=0.05, momentum=0.9
                )

    steps(explicit, PaperUpdate(), 5)
    scales = effect.scales()
    assert max(abs(float(s) - 1) for s in scales.values()) > 0.01
    for end in ends:
        assert float(scales[end]) == pytest.approx(explicit.get_submodule(end).scale.item(), rel=1e-4)
    x = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(folded.eval()(x), explicit.eval()(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("structures", ["blocks", "channels"])
def test_training_resumes_to_the_same_bits(structures):
    def start():
        torch.manual_seed(0)
        model = build("cifar_resnet", 4, {"depth": 8, "width": 0.25})
        return model, StructureEffect(model, StructureOptions(structures=structures))

    model, effect = start()
    effect.at_start()
    optimizer = steps(model, effect, 3)
    saved = copy.deepcopy((model.state_dict(), effect.state_dict(), optimizer.state_dict()))
    go_on(model, effect, optimizer, 3, seed=1)

    resumed, again = start()
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    later = torch.optim.SGD(resumed.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    later.load_state_dict(saved[2])
    go_on(resumed, again, later, 3, seed=1)
    for left, right in ((model.state_dict(), resumed.state_dict()), (effect.scales(), again.scales())):
        assert all(torch.equal(a, b) for a, b in zip(left.values(), right.values(), strict=True))


def test_the_scale_of_a_branch():
    norm, conv = nn.BatchNorm2d(4), nn.Conv2d(8, 512, 1, bias=False)
    norm.weight.data = torch.tensor([0.5, -0.5, 0.5, 0.5])
    assert branch_scale(norm) == pytest.approx(0.5)
    norm.bias.data.fill_(0.5)
    assert branch_scale(norm) == pytest.approx(0.5**0.5)
    nn.init.normal_(conv.weight, std=(2 / 512) ** 0.5, generator=torch.Generator().manual_seed(0))
    assert branch_scale(conv) == pytest.approx(1, rel=0.05)
    conv.weight.data.zero_()
    assert branch_scale(conv) == 0


@pytest.mark.parametrize(
    ("build_network", "blocks"),
    [
        (lambda: build("cifar_resnet", 5, {"depth": 14, "width": 0.5}), ("layer2.0", "layer3.1")),
        (lambda: build("cifar_preresnet", 5, {"depth": 20}), ("layer2.0", "layer3.1")),
        (lambda: PreResNet(PreResNetShape((1, 2), (4, 8), 8, "imagenet"), 5), ("layer1.0", "layer2.1")),
        (lambda: torchvision.models.resnet18(num_classes=5), ("layer1.1", "layer2.0")),
        (lambda: ResNet(Bottleneck, [1, 2, 1, 1], num_classes=5), ("layer1.0", "layer2.1")),
    ],
)
def test_zero_blocks_vanish_and_projections_stay(build_network, blocks):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    model = randomise(build_network(), x)
    for block in blocks:
        zero_branch(model, block)
    pruned = structure(model, x, zeros_only=True)
    assert pruned.plan.drop == blocks
    with torch.no_grad():
        assert torch.allclose(pruned.model.eval()(x), model(x), rtol=1e-4, atol=1e-4)
    names = {name for name, _ in pruned.model.named_parameters()}
    for block in blocks:
        left = {name for name in names if name.startswith(f"{block}.")}
        kept = {n for n, _ in model.named_parameters() if n.startswith(f"{block}.downsample")}
        assert kept <= left
        assert not any(".conv" in name for name in left)


def test_the_asked_fraction_of_blocks_goes():
    torch.manual_seed(0)
    model = build("cifar_resnet", 5, {"depth": 14, "width": 0.25}).eval()
    for i, block in enumerate(residual_blocks(model)):  # scales .6 .5 .4 .3 .2 .1
        model.get_submodule(branch_end(model, block)).weight.data.fill_(0.6 - 0.1 * i)
    x = torch.randn(2, 3, 16, 16)
    assert structure(model, x, 0.5).plan.drop == ("layer2.1", "layer3.0", "layer3.1")
    assert structure(model, x, 0.0).plan.drop == ()
    skipping = Selection(ratio=0.5, skip=("layer3.*",))
    assert structure(model, x, selection=skipping).plan.drop == ("layer2.0", "layer2.1")
    with pytest.raises(ValueError, match="no residual block of 6 would keep its branch"):
        structure(model, x, 0.9)
    with pytest.raises(ValueError, match="one ratio for the network"):
        structure(model, x, selection=Selection(ratio=(0.1, 0.2, 0.3)))


def test_zero_channels_vanish():
    x = torch.randn(4, 3, 8, 8)
    torch.manual_seed(0)
    model = randomise(Plain(), x)
    with torch.no_grad():
        for tensor in (model[1].weight, model[1].bias):
            tensor[[2, 5]] = 0
        model[5].weight[3] = 0  # beta is left: the channel still emits a constant
    pruned = structure(model, x, structures="channels", zeros_only=True)
    assert pruned.plan.keep == {"0": (0, 1, 3, 4, 6, 7), "4": tuple(range(12))}
    with torch.no_grad():
        assert torch.allclose(pruned.model.eval()(x), model(x), rtol=1e-4, atol=1e-5)


def test_networks_without_blocks_or_scales_are_refused():
    with pytest.raises(ValueError, match="no residual block"):
        StructureEffect(Plain(), StructureOptions(structures="blocks"))
    frozen = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d)
    with pytest.raises(ValueError, match=r"a scale in layer1\.0\.bn2: its FrozenBatchNorm2d has a constant weight"):
        StructureEffect(frozen, StructureOptions())
    with pytest.raises(ValueError, match="structures='stages'"):
        StructureOptions(structures="stages")
    with pytest.raises(ValueError, match=r"momentum=1\.0"):
        StructureOptions(momentum=1.0)


def test_training_brings_blocks_to_exact_zero(tmp_path):
    torch.manual_seed(0)
    model = build("cifar_resnet", 10, {"depth": 14, "width": 0.25})
    effect = StructureEffect(model, StructureOptions(strength=0.1))
    train_on_digits(model, [effect], tmp_path, epochs=8)
    dead = [name for name, scale in effect.scales().items() if float(scale) == 0]
    pruned = structure(model, torch.randn(2, 3, 8, 8), zeros_only=True)
    assert [branch_end(model, block) for block in pruned.plan.drop] == dead
    assert 1 <= len(dead) <= 5
    assert accuracy(pruned.model) == accuracy(model) > 90


def test_training_brings_channels_to_exact_zero(tmp_path):
    model = small_vgg()
    effect = StructureEffect(model, StructureOptions(strength=0.03))
    train_on_digits(model, [effect], tmp_path, epochs=8)
    pruned = structure(model, torch.randn(2, 3, 8, 8), zeros_only=True)
    alive = {name: tuple(scale.nonzero().flatten().tolist()) for name, scale in effect.scales().items()}
    assert (pruned.plan.keep["0"], pruned.plan.keep["4"]) == (alive["1"], alive["5"])
    assert len(alive["5"]) < 24
    assert accuracy(pruned.model) == accuracy(model) > 90
    assert structure(residual_network().eval(), torch.randn(2, 3, 16, 16), 0.5, structures="channels").plan.keep
