"""timm's families as backbones, dense and pruned: PYTHONPATH=.:tests python -m support.timm_families prints the table.

Weights are random. Each network gets a small Faster R-CNN with FPN, which is trained for two iterations and exported;
so does the pruned network.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from classify.export import export
from classify.models import arch, build, channel_groups
from detect.backbone import ClassifierBackbone
from detect.build import build_detector
from detect.export import SIGNATURE, DetectionComparison, ImageDetector, every_score, example_image, other_images
from detect.prune import backbone_groups, prune_detector
from detect.train import train_detector
from pruning.cut import prune
from pruning.select import Selection
from support.tiny_detector import SMALL, settings, two_squares

RATIO = 0.5
STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Network:
    """One of a family; `selection`: how it is pruned, in the words of the config."""

    family: str
    name: str
    scope: str = "inner"
    skip: tuple[str, ...] = ()
    allow_partial: bool = False

    def selection(self) -> Selection:
        return Selection(RATIO, scope=self.scope, skip=self.skip)

    def words(self) -> str:
        """What a config has to say beside the ratio."""
        said = [f"scope: {self.scope}"] * (self.scope != "inner")
        said += [f"skip: [{', '.join(self.skip)}]"] * bool(self.skip)
        return ", ".join([*said, *["allow_partial: true"] * self.allow_partial])


NETWORKS = (
    Network("EfficientNet", "efficientnet_b0"),
    Network("EfficientNet", "tf_efficientnet_lite0"),
    Network("EfficientNet", "tf_efficientnetv2_b0"),
    Network("MobileNet", "mobilenetv2_100"),
    Network("MobileNet", "mobilenetv3_large_100"),
    Network("MnasNet", "mnasnet_100"),
    Network("RegNet", "regnetx_002", "all", ("*.conv1.conv", "*.conv2.conv")),
    Network("RegNet", "regnety_002", "all", ("*.conv1.conv", "*.conv2.conv")),
    Network("GhostNet", "ghostnet_100", allow_partial=True),
    Network("RepVGG", "repvgg_a0", "all"),
    Network("CSP", "cspresnet50", allow_partial=True),
    Network("CSP", "cspdarknet53"),
    Network("VoVNet", "ese_vovnet19b_dw"),
    Network("VoVNet", "ese_vovnet39b"),
    Network("ResNet-D", "resnet26d"),
    Network("DLA", "dla34"),
    Network("HRNet", "hrnet_w18_small"),
    Network("ConvNeXt", "convnext_atto"),
    Network("Res2Net", "res2net50_14w_8s", "all", ("*.conv1", "*.convs.*")),
)


@dataclass(frozen=True)
class Tried:
    """Widths of the features by stride; parameters of the backbone dense, pruned before and inside the detector.

    `differences` of masked and smaller network, relative, of both prunings.
    """

    widths: tuple[int, ...]
    params: int
    pruned: int
    pruned_inside: int
    differences: tuple[float, float]

    def row(self, network: Network) -> str:
        """Of the table in docs/backbones.md."""
        left = [f"{100 * params / self.params:.0f} %" for params in (self.pruned, self.pruned_inside)]
        cells = [network.family, f"`{network.name}`", "/".join(map(str, self.widths))]
        cells += [f"{self.params / 1e6:.2f} M", *left, f"`{network.words()}`" if network.words() else ""]
        return f"| {' | '.join(cells)} |"


HEADING = """\
| family | network | widths at strides 4/8/16/32 | backbone | left, pruned before | left, pruned inside | said of it |
| --- | --- | --- | --- | --- | --- | --- |"""


def lively(name: str) -> nn.Module:
    """The network with affine parameters and means that make a wrong cut visible."""
    torch.manual_seed(0)
    model = build(f"timm/{name}", 10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.1)
        elif getattr(module, "gamma", None) is not None:  # ConvNeXt's, 1e-6 at first: no branch would be seen
            module.gamma.data.uniform_(0.5, 1.5)
    return model


def tried(network: Network, folder: Path) -> Tried:
    """Dense and pruned, built, trained, exported; pruned inside the detector too. ValueError where something fails."""
    model, name = lively(network.name), arch(f"timm/{network.name}")
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pruned = prune(
        model,
        name,
        channel_groups(name.name, model),
        "l1_filter",
        network.selection(),
        batch=batch,
        seed=0,
        allow_partial=network.allow_partial,
    )
    detector = _trained(model, folder)
    small = _trained(pruned.model, folder)
    inside = prune_detector(
        detector,
        name,
        backbone_groups(model, batch[:1], strides=STRIDES),
        "l1_filter",
        network.selection(),
        batch=batch,
        seed=0,
        allow_partial=network.allow_partial,
    )
    _export(inside.detector)
    backbone = detector.backbone.bottom_up
    assert isinstance(backbone, ClassifierBackbone)
    assert pruned.difference is not None and inside.difference is not None
    return Tried(
        tuple(shape.channels for shape in backbone.output_shape().values()),
        _params(backbone),
        _params(small.backbone.bottom_up),
        _params(inside.detector.backbone.bottom_up),
        (pruned.difference, inside.difference),
    )


def _trained(classifier: nn.Module, folder: Path) -> nn.Module:
    """A detector around it after two iterations, whose export was compared with it."""
    torch.manual_seed(0)
    detector, cfg = build_detector(classifier, SMALL, num_classes=2)
    before = [p.detach().clone() for p in detector.backbone.bottom_up.parameters()]
    how = settings(iterations=2)
    train_detector(detector, cfg, dataset=two_squares(folder), **how, checkpoint=folder / "checkpoint.pt")
    after = list(detector.backbone.bottom_up.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(bool(p.isfinite().all()) for p in after)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    _export(detector)
    return detector


def _export(detector: nn.Module) -> None:
    comparison = DetectionComparison()
    with every_score(detector):
        export(
            ImageDetector(detector),
            example_image((64, 64)),
            SIGNATURE,
            "torchscript",
            others=other_images((64, 64)),
            compare=comparison,
        )
    assert comparison.detections


def _params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def main() -> None:
    print(HEADING)
    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = tried(network, Path(folder)).row(network)
            except ValueError as error:
                row = f"| {network.family} | `{network.name}` | {error} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
