"""One detector training step, ours against plain Detectron2, and what each of our speed-ups alone buys.

Plain is what a Detectron2 user gets: its RPN, box head, ROIAlign and FrozenBatchNorm, its SimpleTrainer and SGD,
float32. Ours is detect.build and detect.train, in float32 and in bfloat16; `auto` is the one that was measured to be
fast, and its ratio to the better of both is printed (bar: 1). Each further row is ours in float32 with one speed-up
off, and what that buys: how much longer a step is without it. `compiled` is `machine.compile`, where asked for: it
needs a C++ compiler. All start from the same weights, see the same images and take turns; ratios are of one round
each, their median is printed. Freed memory is kept in every row, plain included: it belongs to the process, and has
lines of its own. What buys less than 3 % in every case has no place in the code.
Run: python benchmarks/detector_step.py [--cases demo bccd] [--norm BN] [--threads 1] [--clock cpu] [--compile]
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any
from unittest import mock

import torch
from detectron2.engine import SimpleTrainer
from detectron2.layers import ROIAlign
from detectron2.solver import get_default_optimizer_params
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from classify.models import build
from classify.optimizers import fused_sgd
from detect.build import build_detector
from detect.cpu.roi_align import SeparableROIAlign
from detect.data import CocoDataset, loader
from detect.detector_config import make_config
from detect.scenes import write_scenes
from detect.settings import DetectorSettings, TrainRun, TrainSettings
from detect.train import DetectorTrainer
from training import layout, products
from training.compiled import compiled
from training.device import set_threads, settle
from training.layout import channels_last

BOXES, WARMUP = 4, 3
LR, MOMENTUM, WEIGHT_DECAY, CLIP = 0.002, 0.9, 1e-4, 5.0
PLAIN = {"MODEL.PROPOSAL_GENERATOR.NAME": "RPN", "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead"}
OFF = {  # what asks whether the faster way can be gone, and is told no
    "without oneDNN's products": (products, "_has_avx512"),
    "without convolutions as products": (layout, "faster_as_convolution"),
}
MEMORY_PROCESSES = 3  # with freed memory kept, and as many without


@dataclass(frozen=True)
class Case:
    """A network, the side of its images, and what differs from Detectron2's own numbers."""

    arch: str
    size: int
    batch: int
    bars: dict[str, float] = field(default_factory=dict)  # against plain, in float32, by norm
    options: dict[str, Any] = field(default_factory=dict)
    detector: dict[str, Any] = field(default_factory=dict)


SMALL = {"strides": (4, 8, 16), "fpn_channels": 48, "pre_nms_topk": 200, "train_proposals": 100, "box_head_dim": 256}
CASES = {
    "demo": Case(
        "resnet10",
        128,
        6,
        options={"width": 0.5},
        detector=SMALL
        | {"anchor_sizes": (24, 32, 40, 52), "anchor_ratios": (1.0, 1.6), "rpn_batch_size": 64, "roi_batch_size": 32},
    ),
    "bccd": Case(
        "resnet10",
        192,
        4,
        options={"width": 0.5},
        detector=SMALL
        | {"anchor_sizes": (16, 32, 48, 80), "anchor_ratios": (1.0,), "rpn_batch_size": 128, "roi_batch_size": 64},
    ),
    "resnet18": Case(
        "resnet18",
        128,
        4,
        bars={"BN": 2.0, "FrozenBN": 1.7},
        detector={
            "fpn_channels": 64,
            "anchor_sizes": (8, 16, 32, 64, 128),
            "rpn_batch_size": 64,
            "roi_batch_size": 64,
            "train_proposals": 200,
            "box_head_dim": 256,
        },
    ),
    "large": Case("resnet18", 320, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--norm", choices=("FrozenBN", "BN"), default="BN")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor seconds, where others compute too"
    )
    parser.add_argument("--compile", action="store_true", help="a row compiled by torch.compile, in float32")
    arguments = parser.parse_args()
    set_threads(arguments.threads, jobs=1)
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    for name in arguments.cases:
        compare(name, arguments.norm, arguments.rounds, clock, compile=arguments.compile)
    pictures(arguments.rounds, clock)
    memory(arguments.rounds)


def compare(name: str, norm: str, rounds: int, clock: Callable[[], float], *, compile: bool) -> None:
    case = CASES[name]
    batch, size, threads = make_batch(case), case.size, torch.get_num_threads()
    print(f"{name}: {case.arch}, {size} px, batch {case.batch}, {norm}, {threads} threads, median of {rounds} rounds")
    seconds: dict[str, list[float]] = {}
    with ExitStack() as stack, EventStorage(0) as storage:
        trainers = make_trainers(case, norm, batch, stack, compile=compile)
        for i in range(WARMUP + rounds):
            for row, trainer in random.Random(i).sample(list(trainers.items()), len(trainers)):
                trainer.storage, trainer.iter = storage, i
                torch.manual_seed(i)
                with mock.patch.object(*OFF[row], lambda *_: False) if row in OFF else nullcontext():
                    start = clock()
                    trainer.run_step()
                    taken = clock() - start
                if i >= WARMUP:
                    seconds.setdefault(row, []).append(taken)
    medians = {row: statistics.median(found) for row, found in seconds.items()}

    def ratio(row: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[row], seconds["float32"], strict=True))

    for row in trainers:
        buys = f"   {ratio(row) - 1:+6.1%}" if row.startswith("without") else ""
        print(f"  {row:32s} {1e3 * medians[row]:8.1f} ms, least {1e3 * min(seconds[row]):8.1f}{buys}")
    bar = f" (bar: {case.bars[norm]})" if case.bars else ""
    print(f"  float32 is {ratio('plain'):.2f} times as fast as plain{bar}")
    if compile:
        print(f"  compiled is {ratio('plain') / ratio('compiled'):.2f} times as fast as plain")
    precision = settle("auto", "cpu")
    better = min(medians["float32"], medians["bfloat16"]) / medians[precision.name]
    measured = f"bfloat16 measured {precision.bfloat16_speedup} times as fast"
    print(f"  auto: {precision.name} ({measured}), {better:.2f} of the better of both (bar: 1)")


def make_trainers(case: Case, norm: str, batch: list[dict], stack: ExitStack, *, compile: bool) -> dict[str, Any]:
    """A trainer for each row; all detectors have the same weights."""
    weights = make_detector(case, norm).state_dict()

    def ours(overrides: dict[str, Any] | None = None, dtype: torch.dtype | None = None, **off: Any) -> DetectorTrainer:
        detector = make_detector(case, norm, overrides or {}, off.pop("replaced", ()))
        detector.load_state_dict(weights)
        if off.pop("channels_last", True):
            stack.enter_context(channels_last(detector, dtype=dtype))
        stack.enter_context(compiled(detector.backbone, wanted=off.pop("compile", False)))
        return our_trainer(detector, batch, dtype, **off)

    theirs = make_detector(case, norm, PLAIN, (SeparableROIAlign,))
    theirs.load_state_dict(weights)
    return {
        "plain": plain_trainer(theirs, batch),
        "float32": ours(),
        "bfloat16": ours(dtype=torch.bfloat16),
        **({"compiled": ours(compile=True)} if compile else {}),
        "without selected proposals": ours({"MODEL.PROPOSAL_GENERATOR.NAME": "RPN"}),
        **{row: ours() for row in OFF},
        "without separable ROIAlign": ours(replaced=(SeparableROIAlign,)),
        "without channels last": ours(channels_last=False),
        "without fused SGD": ours(make_sgd=foreach_sgd),
        "with PyTorch's fused SGD": ours(make_sgd=partial(foreach_sgd, foreach=False, fused=True)),
    }


def make_detector(case: Case, norm: str, overrides: dict[str, Any] | None = None, replaced: Any = ()) -> nn.Module:
    """The detector of a case; `replaced`: our layers in whose place Detectron2's own are put."""
    settings = DetectorSettings(image_size=case.size, norm=norm, overrides=overrides or {}, **case.detector)
    detector, _ = build_detector(build(case.arch, 10, case.options), settings, num_classes=10)
    for parent in list(detector.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SeparableROIAlign) and SeparableROIAlign in replaced:
                plain = ROIAlign(child.output_size, child.spatial_scale, child.sampling_ratio, child.aligned)
                setattr(parent, name, plain)
    return detector


def memory(rounds: int) -> None:
    """Print what a step of the demo costs where freed memory is kept, and where glibc gives it back: a process each."""
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        found: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
        for kept in (True, False) * MEMORY_PROCESSES:
            found[kept].append(pool.submit(steps_of_demo, kept, rounds).result())
    for kept, steps in found.items():
        seconds, faults = (statistics.median(values) for values in zip(*steps, strict=True))
        words = "kept" if kept else "given back"
        print(f"a step of the demo, freed memory {words}: {1e3 * seconds:.1f} ms of the processor, {faults:.0f} faults")


def steps_of_demo(kept: bool, rounds: int) -> tuple[float, int]:
    """Processor seconds and page faults of a step, medians."""
    if kept:
        set_threads(1, jobs=1)
    torch.set_num_threads(1)
    case = CASES["demo"]
    used = []
    with ExitStack() as stack, EventStorage(0) as storage:
        detector = make_detector(case, "BN")
        stack.enter_context(channels_last(detector, dtype=None))
        trainer = our_trainer(detector, make_batch(case), None)
        for i in range(WARMUP + rounds):
            trainer.storage, trainer.iter = storage, i
            before = getrusage(RUSAGE_SELF)
            trainer.run_step()
            after = getrusage(RUSAGE_SELF)
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            used.append((seconds, after.ru_minflt - before.ru_minflt))
    seconds, faults = (statistics.median(values) for values in zip(*used[WARMUP:], strict=True))
    return seconds, int(faults)


def pictures(rounds: int, clock: Callable[[], float]) -> None:
    """Print what a batch of the demo costs whose pictures are read and scaled, and one whose were kept."""
    with tempfile.TemporaryDirectory() as folder:
        split = write_scenes(Path(folder), images={"train": 60}, image_size=128)["train"]
        dataset = CocoDataset(split.annotations, split.image_dir)
        cfg = make_config(DetectorSettings(image_size=128, max_image_size=128), num_classes=10)
        for name, room in (("read", 0), ("kept", 2**28)):
            with mock.patch.object(loader, "_kept", loader._Kept(free=room)):
                batches = iter(loader.train_loader(dataset, cfg, batch_size=6, seed=0))
                list(islice(batches, 10))
                seconds = []
                for _ in range(rounds):
                    start = clock()
                    next(batches)
                    seconds.append(clock() - start)
            print(f"data of a step of the demo, pictures {name}: {1e3 * statistics.median(seconds):.1f} ms")


def make_batch(case: Case) -> list[dict]:
    """Images of noise with boxes of 32 to 52 pixels, as Detectron2's mapper gives them."""
    torch.manual_seed(0)
    batch, shape = [], (case.size, case.size)
    for _ in range(case.batch):
        corner = torch.rand(BOXES, 2) * (case.size - 52)
        instances = Instances(shape)
        instances.gt_boxes = Boxes(torch.cat([corner, corner + 32 + 20 * torch.rand(BOXES, 2)], 1))
        instances.gt_classes = torch.randint(0, 10, (BOXES,))
        image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
        batch.append({"image": image, "instances": instances, "height": case.size, "width": case.size})
    return batch


def plain_trainer(detector: nn.Module, batch: list[dict]) -> SimpleTrainer:
    """Detectron2's trainer and SGD; the same clipping of the gradient's norm, as a hook of the optimizer."""
    trainer = SimpleTrainer(detector, repeat(batch), foreach_sgd(detector))

    def clip(*_) -> None:
        nn.utils.clip_grad_norm_(detector.parameters(), CLIP)

    trainer.optimizer.register_step_pre_hook(clip)
    return trainer


def our_trainer(
    detector: nn.Module,
    batch: list[dict],
    dtype: torch.dtype | None,
    make_sgd: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
) -> DetectorTrainer:
    settings = TrainSettings(iterations=10**9, batch_size=len(batch), lr=LR, clip_norm=CLIP)
    trainer = DetectorTrainer(detector, (make_sgd or our_sgd)(detector), settings, TrainRun(), dtype)
    trainer.data_loader, trainer.max_iter = repeat(batch), settings.iterations
    return trainer


def our_sgd(detector: nn.Module) -> torch.optim.Optimizer:
    groups = get_default_optimizer_params(detector, weight_decay_norm=0.0)
    return fused_sgd(groups, LR, MOMENTUM, weight_decay=WEIGHT_DECAY)


def foreach_sgd(detector: nn.Module, *, foreach: bool = True, fused: bool = False) -> torch.optim.Optimizer:
    """As detectron2.solver.build_optimizer makes it."""
    groups = get_default_optimizer_params(detector, weight_decay_norm=0.0)
    options = {"lr": LR, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
    return torch.optim.SGD(groups, **options, foreach=foreach, fused=fused)


def repeat(batch: list[dict]) -> Iterator[list[dict]]:
    """One batch for ever: the data's cost is not what is measured here."""
    while True:
        yield batch


if __name__ == "__main__":
    main()
