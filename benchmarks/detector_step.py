"""One detector training step, ours against plain Detectron2: same weights, same images, taken in turn.

Plain is what a Detectron2 user gets: its RPN, ROIAlign and FrozenBatchNorm, its SimpleTrainer and SGD, float32.
Ours is detect.build and detect.train, in float32 and in bfloat16; `auto` is the one that was measured to be fast, and
its ratio to the better of both is printed (bar: 1). Run: python benchmarks/detector_step.py [--norm BN] [--rounds 20]
"""

import argparse
import statistics
import time
from contextlib import ExitStack

import torch
from detectron2.engine import SimpleTrainer
from detectron2.layers import FrozenBatchNorm2d, ROIAlign
from detectron2.solver import get_default_optimizer_params
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn
from torchvision.models import resnet18

from classify.optimizers import fused_sgd
from detect.backbone import FusedFrozenBatchNorm2d
from detect.build import build_detector
from detect.cpu.roi_align import SeparableROIAlign
from detect.settings import DetectorSettings, TrainRun, TrainSettings
from detect.train import DetectorTrainer
from training.device import channels_last, settle
from training.options import changed

IMAGE_SIZE, BATCH, BOXES, WARMUP = 128, 4, 6, 3
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}  # autocast's
LR, MOMENTUM, WEIGHT_DECAY, CLIP = 0.002, 0.9, 1e-4, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--norm", choices=("FrozenBN", "BN"), default="BN")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    settings = DetectorSettings(
        image_size=IMAGE_SIZE,
        norm=arguments.norm,
        fpn_channels=64,
        anchor_sizes=(8, 16, 32, 64, 128),
        rpn_batch_size=64,
        roi_batch_size=64,
        train_proposals=200,
        box_head_dim=256,
    )
    ours = {kind: build_detector(resnet18(weights=None), settings, num_classes=10)[0] for kind in DTYPES}
    plain = changed(settings, {"overrides": {"MODEL.PROPOSAL_GENERATOR.NAME": "RPN"}}, "settings")
    theirs = build_detector(
        resnet18(weights=None),
        plain,
        num_classes=10,
    )[0]
    _make_plain(theirs)
    theirs.load_state_dict(ours["float32"].state_dict())
    ours["bfloat16"].load_state_dict(ours["float32"].state_dict())
    batch = make_batch()

    precision = settle("auto", "cpu")
    with ExitStack() as stack, EventStorage(0) as storage:
        trainers = {"plain": plain_trainer(theirs, batch)}
        for kind, detector in ours.items():
            stack.enter_context(channels_last(detector, dtype=DTYPES[kind]))
            trainers[kind] = our_trainer(detector, batch, DTYPES[kind])
        for trainer in trainers.values():
            trainer.storage, trainer.iter = storage, 0
        seconds: dict[str, list[float]] = {name: [] for name in trainers}
        for i in range(WARMUP + arguments.rounds):
            for name, trainer in trainers.items():
                torch.manual_seed(i)
                start = time.perf_counter()
                trainer.run_step()
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times[WARMUP:]) for name, times in seconds.items()}
    print(f"ResNet-18-FPN Faster R-CNN, {IMAGE_SIZE} px, batch {BATCH}, {arguments.norm}, {arguments.threads} threads")
    for name, median in medians.items():
        print(f"{name:8s} {1e3 * median:8.1f} ms per step (median of {arguments.rounds})")
    for kind in DTYPES:
        print(f"{kind} is {medians['plain'] / medians[kind]:.2f} times as fast as plain (bar: 1.5)")
    better = min(medians[kind] for kind in DTYPES) / medians[precision.name]
    measured = f"bfloat16 measured {precision.bfloat16_speedup} times as fast"
    print(f"auto: {precision.name} ({measured}), {better:.2f} of the better of both (bar: 1)")


def make_batch() -> list[dict]:
    """Images of noise with boxes of 12 to 36 pixels, as Detectron2's mapper gives them."""
    torch.manual_seed(0)
    batch = []
    for _ in range(BATCH):
        corner = torch.rand(BOXES, 2) * 90
        instances = Instances((IMAGE_SIZE, IMAGE_SIZE))
        instances.gt_boxes = Boxes(torch.cat([corner, corner + 12 + 24 * torch.rand(BOXES, 2)], 1))
        instances.gt_classes = torch.randint(0, 10, (BOXES,))
        image = torch.randint(0, 256, (3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
        batch.append({"image": image, "instances": instances, "height": IMAGE_SIZE, "width": IMAGE_SIZE})
    return batch


def plain_trainer(detector: nn.Module, batch: list[dict]) -> SimpleTrainer:
    """Detectron2's trainer and SGD; the same clipping of the gradient's norm, as a hook of the optimizer."""
    optimizer = torch.optim.SGD(
        get_default_optimizer_params(detector, weight_decay_norm=0.0),
        lr=LR,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        foreach=True,  # as detectron2.solver.build_optimizer
    )
    trainer = SimpleTrainer(detector, _Repeat(batch), optimizer)

    def clip(*_) -> None:
        nn.utils.clip_grad_norm_(detector.parameters(), CLIP)

    optimizer.register_step_pre_hook(clip)
    return trainer


def our_trainer(detector: nn.Module, batch: list[dict], dtype: torch.dtype | None) -> DetectorTrainer:
    settings = TrainSettings(iterations=10**9, batch_size=BATCH, lr=LR, clip_norm=CLIP)
    groups = get_default_optimizer_params(detector, weight_decay_norm=0.0)
    optimizer = fused_sgd(groups, LR, MOMENTUM, weight_decay=WEIGHT_DECAY)
    trainer = DetectorTrainer(detector, optimizer, settings, TrainRun(), dtype)
    trainer.data_loader, trainer.max_iter = _Repeat(batch), settings.iterations
    return trainer


class _Repeat:
    """One batch for ever: the data's cost is not what is measured."""

    def __init__(self, batch: list[dict]):
        self.batch = batch

    def __iter__(self):
        while True:
            yield self.batch


def _make_plain(detector: nn.Module) -> None:
    """Put Detectron2's own layers where detect.build puts faster ones."""
    for parent in list(detector.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SeparableROIAlign):
                plain = ROIAlign(child.output_size, child.spatial_scale, child.sampling_ratio, child.aligned)
                setattr(parent, name, plain)
            elif isinstance(child, FusedFrozenBatchNorm2d):
                plain = FrozenBatchNorm2d(child.num_features, child.eps)
                plain.num_batches_tracked = child.num_batches_tracked
                setattr(parent, name, plain)


if __name__ == "__main__":
    main()
