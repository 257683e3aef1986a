"""Inference of dense and pruned detectors, and of their backbones alone, taken in turn on the same images.

The pruned backbone has half of the dense one's MACs: each block's inner filters, removed by L1 norm, the ratio found by
bisection. Realised saving: (1 - latency ratio) / (1 - MACs ratio); the bar is 0.7 for the backbone. One pruned
backbone has the widths that come out, another the nearest multiples of `--round-to` (Selection.round_to).
Run: python benchmarks/detector_inference.py [--arch resnet34] [--size 512] [--batches 1 4] [--rounds 15] [--widths]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from detectron2.structures import ImageList
from torch import Tensor, nn

from classify.models import arch, build, example_input, stages_of
from detect.backbone import ClassifierBackbone
from detect.build import build_detector
from detect.prune import backbone_groups
from detect.settings import DetectorSettings
from pruning.cost import count_macs
from pruning.cut import prune
from pruning.select import Selection

WARMUP, BAR, STRIDES = 2, 0.7, (4, 8, 16, 32)
SEARCH_STEPS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet34")
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--macs", type=float, default=0.5, help="MACs of the pruned backbone as part of the dense")
    parser.add_argument("--round-to", type=int, default=16)
    parser.add_argument("--backbone-only", action="store_true")
    parser.add_argument("--widths", action="store_true", help="time single convolutions by their number of filters")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.arch}, {arguments.size} px, {arguments.threads} threads, channels_last, float32")
    if arguments.widths:
        time_widths(arguments.size // 8, arguments.rounds)
        return
    classifiers = make_classifiers(arguments.arch, arguments.macs, arguments.round_to)
    for batch in arguments.batches:
        images = torch.randn(batch, 3, arguments.size, arguments.size).contiguous(memory_format=torch.channels_last)
        bodies = {name: as_backbone(model) for name, model in classifiers.items()}
        macs = {name: count_macs(_Tuple(body), images[:1]) for name, body in bodies.items()}
        report(f"backbone, batch {batch}", time_in_turn(bodies, images, arguments.rounds), macs)
        exported = {name: as_exported(body, images) for name, body in bodies.items()}
        report(f"exported backbone, batch {batch}", time_in_turn(exported, images, arguments.rounds), macs)
        if not arguments.backbone_only:
            detectors = {name: as_detector(model, arguments.size) for name, model in classifiers.items()}
            report(f"detector, batch {batch}", time_in_turn(detectors, images, arguments.rounds), None)


def make_classifiers(name: str, part: float, round_to: int) -> dict[str, nn.Module]:
    """Dense, and with `part` of the backbone's MACs: at the widths that come out, and at multiples of `round_to`."""
    torch.manual_seed(0)
    dense = build(name, 1000).eval()
    groups = backbone_groups(dense, example_input(name), strides=STRIDES, stages=stages_of(name))
    example = example_input(name)

    def pruned(ratio: float, multiple: int) -> nn.Module:
        selection = Selection(ratio, round_to=multiple)
        return prune(dense, arch(name), groups, "l1_filter", selection, batch=example, seed=0).model.eval()

    def ratio_for(multiple: int) -> float:
        wanted = part * count_macs(_Tuple(as_backbone(dense)), example)
        low, high = 0.0, 0.99
        for _ in range(SEARCH_STEPS):
            middle = (low + high) / 2
            too_big = count_macs(_Tuple(as_backbone(pruned(middle, multiple))), example) > wanted
            low, high = (middle, high) if too_big else (low, middle)
        return high

    return {
        "dense": dense,
        "pruned": pruned(ratio_for(1), 1),
        f"pruned to multiples of {round_to}": pruned(ratio_for(round_to), round_to),
    }


def as_backbone(classifier: nn.Module) -> nn.Module:
    """As in a detector: cut at four strides, frozen BatchNorm."""
    backbone = ClassifierBackbone(classifier, strides=STRIDES).eval()
    return backbone.to(memory_format=torch.channels_last)


def as_exported(backbone: nn.Module, images: Tensor) -> nn.Module:
    """As `prune-transfer export` leaves it in TorchScript: BatchNorm folded into the convolutions."""
    with torch.no_grad():
        return torch.jit.freeze(torch.jit.trace(_Tuple(backbone).eval(), (images,), check_trace=False))


def as_detector(classifier: nn.Module, size: int) -> nn.Module:
    """Faster R-CNN with FPN of Detectron2's sizes on images of a batch that are all of one size."""
    settings = DetectorSettings(
        image_size=size,
        max_image_size=size,
        test_proposals=300,
        # of random heads as many detections would pass the usual threshold as chance has it
        overrides={"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.9},
    )
    torch.manual_seed(0)  # the same heads around every backbone
    detector, _ = build_detector(classifier, settings, num_classes=20)
    return _Detect(detector.to(memory_format=torch.channels_last), size)


def time_in_turn(
    models: Mapping[str, Callable[[Tensor], object]], images: Tensor, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each round of each model, the models in turn so that they share the machine's drift."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for i in range(WARMUP + rounds):
            for name, model in models.items():
                start = time.perf_counter()
                model(images)
                if i >= WARMUP:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def report(title: str, seconds: dict[str, list[float]], macs: dict[str, int] | None) -> None:
    """Medians, quartiles, and the median over rounds of the ratio to the dense network of the same round."""
    for name, values in seconds.items():
        low, median, high = (1e3 * q for q in statistics.quantiles(values, n=4))
        line = f"{title}, {name}: {median:.1f} ms [{low:.1f}, {high:.1f}]"
        if name != "dense":
            ratios = [a / b for a, b in zip(values, seconds["dense"], strict=True)]
            low, median, high = statistics.quantiles(ratios, n=4)
            line += f", latency x {median:.3f} [{low:.3f}, {high:.3f}]"
            if macs is not None:
                part = macs[name] / macs["dense"]
                line += f", MACs x {part:.3f}, realised saving {(1 - median) / (1 - part):.2f} (bar {BAR})"
        print(line, flush=True)


def time_widths(side: int, rounds: int) -> None:
    """Milliseconds of a 3 x 3 convolution of 128 channels by its number of filters; per MAC against 128 filters."""
    widths = (128, 127, 120, 112, 104, 100, 96, 88, 80, 72, 68, 65, 64, 63, 60, 56, 48, 40, 33, 32, 31, 24, 16)
    layers = {str(w): nn.Conv2d(128, w, 3, padding=1, bias=False) for w in widths}
    layers = {name: layer.to(memory_format=torch.channels_last).eval() for name, layer in layers.items()}
    images = torch.randn(1, 128, side, side).contiguous(memory_format=torch.channels_last)
    medians = {name: statistics.median(v) for name, v in time_in_turn(layers, images, rounds).items()}
    for name, median in medians.items():
        per_mac = (median / int(name)) / (medians["128"] / 128)
        print(f"{name:>4s} filters: {1e3 * median:6.2f} ms, per MAC x {per_mac:.2f}")


class _Tuple(nn.Module):
    """A tuple of feature maps for the counter, which traces."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(images).values())


class _Detect(nn.Module):
    """Images that are normalised already -> detections."""

    def __init__(self, detector: nn.Module, size: int):
        super().__init__()
        self.detector = detector.eval()
        self.size = size

    def forward(self, images: Tensor) -> object:
        listed = ImageList(images, [(self.size, self.size)] * len(images))
        features = self.detector.backbone(images)
        proposals, _ = self.detector.proposal_generator(listed, features)
        return self.detector.roi_heads(listed, features, proposals)[0]


if __name__ == "__main__":
    main()
