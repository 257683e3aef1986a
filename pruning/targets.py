"""Published pruned architectures, as data, and the rule that gives a smaller network its training budget."""

from dataclasses import dataclass

from pruning.select import Selection


@dataclass(frozen=True)
class Target:
    """A pruned architecture of the literature: what is removed from which network, and its base schedule in epochs."""

    arch: str
    selection: Selection
    base_epochs: int
    input_size: int
    cap: float | None = None  # Scratch-B never trains longer than this many base schedules


def _cifar_resnet(arch: str, ratio: tuple[float, ...], skip: tuple[str, ...]) -> Target:
    return Target(arch, Selection(ratio=ratio, skip=tuple(f"{block}.conv1" for block in skip)), 160, 32)


def _resnet34(ratio: tuple[float, ...]) -> Target:
    blocks = ("layer1.0", "layer2.0", "layer2.3", "layer3.0", "layer3.5", "layer4.0", "layer4.1", "layer4.2")
    return Target("resnet34", Selection(ratio=ratio, skip=tuple(f"{b}.conv1" for b in blocks)), 90, 224, cap=2)


# Li et al., ICLR 2017 (ResNet-56/110-A/-B, ResNet-34-A/-B), with the stages and skipped layers of the released code
# of Liu et al., ICLR 2019: only the first convolution of a basic block loses filters.
TARGETS: dict[str, Target] = {
    "resnet56-A": _cifar_resnet("resnet56", (0.1, 0.1, 0.1), ("layer1.7", "layer2.0", "layer3.0", "layer3.8")),
    "resnet56-B": _cifar_resnet(
        "resnet56", (0.6, 0.3, 0.1), ("layer1.7", "layer1.8", "layer2.0", "layer2.7", "layer3.0", "layer3.8")
    ),
    "resnet110-A": _cifar_resnet("resnet110", (0.5, 0.0, 0.0), ("layer1.17",)),
    "resnet110-B": _cifar_resnet("resnet110", (0.5, 0.4, 0.3), ("layer1.17", "layer2.0", "layer3.0")),
    "resnet34-A": _resnet34((0.3, 0.3, 0.3, 0.0)),
    "resnet34-B": _resnet34((0.5, 0.6, 0.4, 0.0)),
}


def scratch_b_epochs(base_epochs: int, dense_macs: int, pruned_macs: int, *, cap: float | None = None) -> int:
    """Epochs that cost the pruned network what `base_epochs` cost the dense one (Liu et al., ICLR 2019, section 3).

    int(base_epochs * dense / pruned). With `cap` = 2, as on ImageNet, a network at least `cap` times cheaper
    trains for cap * base_epochs.
    """
    if pruned_macs < 1 or dense_macs < pruned_macs:
        raise ValueError(f"dense_macs={dense_macs} must be at least pruned_macs={pruned_macs}, which must be positive")
    if cap is not None and dense_macs / pruned_macs >= cap:
        return int(base_epochs * cap)
    return base_epochs * dense_macs // pruned_macs
