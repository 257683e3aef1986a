"""Published pruned architectures, as data, and the rule that gives a smaller network its training budget.

The shapes are those of the released code of Liu et al., ICLR 2019 (arXiv 1810.05270), for the papers named below.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from torch import Tensor, nn

from pruning.achieved import achieved
from pruning.cut import Arch, Pruned, prune_by_choice
from pruning.errors import Refusal
from pruning.graph.blocks import branch_end
from pruning.graph.members import Group
from pruning.methods import Choice, MethodOptions, Request, l1_filter
from pruning.select import Selection, eligible, keep_indices, select


@dataclass(frozen=True)
class Target:
    """A pruned architecture of the literature: what is removed from which network, and its base schedule in epochs.

    `selection`: channels removed (None: none). `select`: number of input channels that a layer reads. `blocks`: by
    stage, how many residual blocks keep their branch, and whether the first is among them.
    `options` builds the network that is pruned, `dense_options` the one whose cost is the budget, where it differs.
    `cap`: Scratch-B never trains longer than this many base schedules.
    """

    arch: str
    selection: Selection | None
    base_epochs: int
    input_size: int
    cap: float | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    dense_options: Mapping[str, object] | None = None
    select: Mapping[str, int] = field(default_factory=dict)
    blocks: Mapping[str, tuple[int, bool]] = field(default_factory=dict)


# The released code numbers the 3x3 convolutions, the stem being 1, so the first one of block i over the whole network
# is 2 (i + 1): the ids 16, 20, 38, 54 that it skips in ResNet-56-A are blocks 7, 9, 18 and 26, of nine a stage.
def _cifar_resnet(arch: str, ratio: tuple[float, ...], skip: tuple[str, ...]) -> Target:
    return Target(arch, Selection(ratio=ratio, skip=tuple(f"{block}.conv1" for block in skip)), 160, 32)


def _resnet34(ratio: tuple[float, ...]) -> Target:
    blocks = ("layer1.0", "layer2.0", "layer2.3", "layer3.0", "layer3.5", "layer4.0", "layer4.1", "layer4.2")
    return Target("resnet34", Selection(ratio=ratio, skip=tuple(f"{b}.conv1" for b in blocks)), 90, 224, cap=2)


# VGG-16: names of the 13 convolutions and their dense widths; in the CIFAR form a BatchNorm follows each
_VGG_CONVS = tuple(f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28))
_VGG_L1_CONVS = tuple(f"feature.{i}" for i in (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40))
_VGG_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


def _exactly(names: Sequence[str], kept: Sequence[int], dense: Sequence[int], skip: tuple[str, ...]) -> Selection:
    """The selection that leaves `kept[i]` of the `dense[i]` channels of `names[i]`, and all of every other layer."""
    # counts are given, a selection takes ratios: `count_to_keep` gives the count back, since its rounding has a
    # tolerance
    ratios = {name: 1 - n / width for name, n, width in zip(names, kept, dense, strict=True)}
    return Selection(ratio=0.0, layers=ratios, skip=skip)


def _vgg16(kept: tuple[int, ...], head: str = "linear") -> Target:
    options = {} if head == "linear" else {"head": head}
    skip = () if head == "gap" else ("classifier.*",)
    return Target(
        "vgg16", _exactly(_VGG_CONVS, kept, _VGG_WIDTHS, skip), 90, 224, cap=2, options=options, dense_options={}
    )


# The released code gives the projections of its ResNet-50 biases. The stem is no part of a block and stays whole.
_BIASED = {"projection_bias": True}


def _thinet_resnet50(ratio: float) -> Target:
    return Target("resnet50", Selection(ratio=ratio, skip=("conv1",)), 90, 224, cap=2, options=_BIASED)


_RESNET50_BLOCKS = tuple(f"layer{i + 1}.{b}" for i, n in enumerate((3, 4, 6, 3)) for b in range(n))
# by block: inputs that the first convolution reads, channels of the first and of the second convolution
_RESNET50_2X = (
    *((35, 64, 55), (101, 51, 39), (97, 50, 37)),
    *((144, 128, 106), (205, 105, 72), (198, 105, 72), (288, 128, 110)),
    *((278, 256, 225), (418, 209, 147), (407, 204, 158), (423, 212, 155), (412, 211, 148), (595, 256, 213)),
    *((606, 512, 433), (1222, 512, 437), (1147, 512, 440)),
)


def _resnet50_2x() -> Target:
    inner = [f"{block}.conv{i}" for block, i in product(_RESNET50_BLOCKS, (1, 2))]
    kept = [n for _, first, second in _RESNET50_2X for n in (first, second)]
    dense = [64 * 2 ** (int(name[5]) - 1) for name in inner]  # name[5]: the stage's number
    inputs = {f"{block}.conv1": n for block, (n, _, _) in zip(_RESNET50_BLOCKS, _RESNET50_2X, strict=True)}
    selection = _exactly(inner, kept, dense, skip=("conv1",))
    return Target("resnet50", selection, 90, 224, cap=2, options=_BIASED, select=inputs)


def _sss(*stages: tuple[int, bool]) -> Target:
    blocks = {f"layer{i + 1}": stage for i, stage in enumerate(stages)}
    return Target("preresnet50", None, 100, 224, blocks=blocks)


TARGETS: dict[str, Target] = {
    # Li et al., ICLR 2017 (arXiv 1608.08710): of a basic block only the first convolution loses filters
    "vgg16-A": Target(
        "vgg16_l1",
        _exactly(_VGG_L1_CONVS, (32, 64, 128, 128, *(256,) * 9), _VGG_WIDTHS, skip=("classifier.*",)),
        160,
        32,
    ),
    "resnet56-A": _cifar_resnet("resnet56", (0.1, 0.1, 0.1), ("layer1.7", "layer2.0", "layer3.0", "layer3.8")),
    "resnet56-B": _cifar_resnet(
        "resnet56", (0.6, 0.3, 0.1), ("layer1.7", "layer1.8", "layer2.0", "layer2.7", "layer3.0", "layer3.8")
    ),
    "resnet110-A": _cifar_resnet("resnet110", (0.5, 0.0, 0.0), ("layer1.17",)),
    "resnet110-B": _cifar_resnet("resnet110", (0.5, 0.4, 0.3), ("layer1.17", "layer2.0", "layer3.0")),
    "resnet34-A": _resnet34((0.3, 0.3, 0.3, 0.0)),
    "resnet34-B": _resnet34((0.5, 0.6, 0.4, 0.0)),
    # ThiNet: Luo et al., ICCV 2017 (arXiv 1707.06342); the ResNets are named by the share kept
    "thinet-vgg16-conv": _vgg16((32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512)),
    "thinet-vgg16-gap": _vgg16((32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512), "gap"),
    "thinet-vgg16-tiny": _vgg16((16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 256), "gap"),
    "thinet-resnet50-30": _thinet_resnet50(0.7),
    "thinet-resnet50-50": _thinet_resnet50(0.5),
    "thinet-resnet50-70": _thinet_resnet50(0.3),
    # regression-based feature reconstruction: He et al., ICCV 2017 (arXiv 1707.06168)
    "vgg16-5x": _vgg16((24, 22, 41, 51, 108, 89, 111, 184, 276, 228, 512, 512, 512)),
    "resnet50-2x": _resnet50_2x(),
    # sparse structure selection: Huang & Wang, ECCV 2018 (arXiv 1707.01213)
    "sss-resnet41": _sss((0, False), (4, True), (6, True), (3, True)),
    "sss-resnet32": _sss((1, False), (4, True), (4, True), (1, True)),
    "sss-resnet26": _sss((0, False), (2, False), (5, False), (1, True)),
}


def get_target(name: str) -> Target:
    """The target of this name; ValueError lists the known ones."""
    if name not in TARGETS:
        raise Refusal(f"unknown target {name!r}; known: {', '.join(TARGETS)}")
    return TARGETS[name]


def choose_for_target(target: Target, model: nn.Module, groups: Sequence[Group]) -> Choice:
    """What to keep of `model` to reach the published shape, by L1 norms of its weights; no data is needed.

    Channels: the norm of the filters; selected inputs: of the kernel slices that read them; blocks: of the
    layer that ends the branch. Raises ValueError for a network that lacks the target's layers.
    """
    keep: dict[str, tuple[int, ...]] = {}
    if target.selection is not None:
        chosen = eligible(groups, target.selection)
        keep = select({g.name: l1_filter.score(model, g) for g in chosen}, chosen, target.selection)
    inputs = {layer: keep_indices(_input_norms(model, layer), n) for layer, n in target.select.items()}
    drop = [block for stage, left in target.blocks.items() for block in _dropped(model, stage, *left)]
    return Choice(keep=keep, select=inputs, drop=tuple(drop))


def prune_to_shape(model: nn.Module, arch: Arch, groups: Sequence[Group], target: Target, *, batch: Tensor) -> Pruned:
    """Prune `model`, which is not changed, to a published shape; what was asked is what is counted."""
    choice = choose_for_target(target, model, groups)
    request = Request(groups, target.selection or Selection(ratio=0.0), MethodOptions(), seed=0)
    found = achieved(model, request, choice, by_ratio=not target.blocks)
    return replace(prune_by_choice(model, arch, groups, choice, batch=batch), achieved=found)


def _input_norms(model: nn.Module, layer: str) -> Tensor:
    # in double precision, as all scores: a float32 sum of 10^5 terms depends on the machine in its last digits, and a
    # choice between near ties with it
    weight = model.get_parameter(f"{layer}.weight").detach()  # (out, in, kh, kw) -> (in,)
    return weight.double().abs().transpose(0, 1).flatten(1).sum(1).cpu()


def _dropped(model: nn.Module, stage: str, n_left: int, first_left: bool) -> list[str]:
    """The blocks of a stage that lose their branch, in order."""
    # Whether the first block keeps its branch is part of the published shape and not ranked: it changes resolution or
    # width, and its projection stays in any case.
    first, *others = (f"{stage}.{name}" for name, _ in model.get_submodule(stage).named_children())
    n_others = n_left - first_left
    norms = torch.stack([model.get_parameter(f"{branch_end(model, b)}.weight").detach().abs().sum() for b in others])
    left = {others[i] for i in keep_indices(norms.double().cpu(), n_others)} if n_others else set()
    return [b for b in (first, *others) if b not in left and not (b == first and first_left)]


def scratch_b_epochs(base_epochs: int, dense_macs: int, pruned_macs: int, *, cap: float | None = None) -> int:
    """Epochs that cost the pruned network what `base_epochs` cost the dense one (Liu et al., ICLR 2019, section 3).

    int(base_epochs * dense / pruned). With `cap` = 2, as on ImageNet, a network at least `cap` times cheaper
    trains for cap * base_epochs.
    """
    if pruned_macs < 1 or dense_macs < pruned_macs:
        raise Refusal(f"dense_macs={dense_macs} must be at least pruned_macs={pruned_macs}, which must be positive")
    if cap is not None and dense_macs / pruned_macs >= cap:
        return int(base_epochs * cap)
    return base_epochs * dense_macs // pruned_macs
