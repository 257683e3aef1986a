"""Training images a second, our loop against the plain one: same weights, same kind of images, taken in turn.

Plain is what people write for CIFAR: a DataLoader over PIL images with torchvision's transforms (the better of 0 and 2
workers), float32, contiguous tensors, torch.optim.SGD as it comes. Ours is classify.step on batches of an ImageSet:
augmentation of whole batches, channels_last, fused SGD, in float32 and in bfloat16; `auto` is the one that was measured
to be fast, and its ratio to the better of both is printed (aim: 1).
`--profile` prints instead which operators a float32 step of ours spends its processor time in.
Run: python benchmarks/classifier_step.py [--models resnet20 vgg16_l1] [--rounds 5] [--threads 2] [--clock cpu]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

from classify.data.images import Batch, ImageSet
from classify.models import build, example_input
from classify.settings import TrainRun, TrainSettings
from classify.step import TrainingStep
from pruning.cost import count_macs
from training.device import settle
from training.layout import channels_last

BATCH, CLASSES, IMAGES = 128, 10, 4096
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 1e-4
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}  # autocast's
GEMM = 2048  # side of the matrices that the peak is measured with


class PilImages(Dataset):
    """CIFAR as torchvision serves it: one PIL image at a time, through the transforms."""

    def __init__(self, data: ImageSet):
        self.pixels = data.images.permute(0, 2, 3, 1).numpy()
        self.labels = data.labels.tolist()
        self.transform = Compose([RandomCrop(32, 4), RandomHorizontalFlip(), ToTensor(), Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[i])), self.labels[i]


def plain_steps(model: nn.Module, data: ImageSet, workers: int) -> Iterator[float]:
    """The plain loop; each `next` is one step."""
    optimizer = torch.optim.SGD(model.parameters(), LR, MOMENTUM, weight_decay=WEIGHT_DECAY)
    loader = DataLoader(
        PilImages(data), BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    model.train()
    while True:
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            yield loss.item()


def our_steps(model: nn.Module, data: ImageSet, dtype: torch.dtype | None) -> Iterator[float]:
    """classify.train's loop without what happens between epochs; each `next` is one step."""
    settings = TrainSettings(epochs=1, batch_size=BATCH, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    step, training = 0, TrainingStep(model, settings, TrainRun(mean=MEAN, std=STD), dtype)
    while True:
        order = torch.randperm(len(data))
        plan = (Batch(index, (0, step, i)) for i, index in enumerate(order.split(BATCH)))
        for images, labels in data.batches(plan, "cifar"):
            yield float(training.take(images, labels, len(labels), step=step, lr=LR))
            step += 1


def gemm_gflops(dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """The best of five products of square matrices, in 1e9 floating-point operations a second."""
    a, b = (torch.randn(GEMM, GEMM).to(dtype) for _ in range(2))
    torch.mm(a, b)
    seconds = []
    for _ in range(5):
        start = clock()
        torch.mm(a, b)
        seconds.append(clock() - start)
    return 2 * GEMM**3 / min(seconds) / 1e9


def compare(name: str, data: ImageSet, arguments: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Print images a second of both loops, their ratio, and the share of the processor's peaks that ours reaches."""
    torch.manual_seed(0)
    precision = settle("auto", "cpu")
    ours = {kind: build(name, CLASSES) for kind in DTYPES}
    loops = {f"plain, {w} workers": plain_steps(_copy(name, ours["float32"]), data, w) for w in arguments.workers}
    seconds: dict[str, list[float]] = {}
    peaks: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    with ExitStack() as stack:
        for kind, model in ours.items():
            stack.enter_context(channels_last(model, dtype=DTYPES[kind]))
            loops[kind] = our_steps(model, data, DTYPES[kind])
        for i in range(arguments.rounds + 1):  # the first round warms up
            for loop, steps in loops.items():
                start = clock()
                for _ in range(arguments.steps):
                    next(steps)
                if i > 0:
                    seconds.setdefault(loop, []).append((clock() - start) / arguments.steps)
            for dtype, found in peaks.items():
                found.append(gemm_gflops(dtype, clock))
    for loop, found in seconds.items():
        print(f"  {loop:18s} {BATCH / statistics.median(found):8.1f} images/s (median of {arguments.rounds} rounds)")
    medians = {loop: statistics.median(found) for loop, found in seconds.items()}
    plain = min((loop for loop in seconds if loop not in DTYPES), key=medians.__getitem__)
    for kind in DTYPES:
        ratios = sorted(p / o for p, o in zip(seconds[plain], seconds[kind], strict=True))
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f} over the rounds"
        print(f"  {kind}: {statistics.median(ratios):.2f} times as fast as plain ({spread}; aim: 1.7)")
    better = min(medians[kind] for kind in DTYPES) / medians[precision.name]
    measured = f"bfloat16 measured {precision.bfloat16_speedup} times as fast"
    print(f"  auto: {precision.name} ({measured}), {better:.2f} of the better of both (aim: 1)")
    # a training step costs about three forward passes, and a multiply-add is two operations
    flops = 6 * count_macs(ours["float32"], example_input(name)) * BATCH / medians[precision.name] / 1e9
    for dtype, found in peaks.items():
        peak = max(found)
        print(f"  auto reaches {flops:.0f} of the {peak:.0f} GFLOP/s of a {dtype} product: {flops / peak:.0%}")


def profile(name: str, data: ImageSet, arguments: argparse.Namespace) -> None:
    """Print the operators' shares of a float32 step of ours, those above a hundredth."""
    model = build(name, CLASSES)
    with channels_last(model, dtype=None):
        steps = our_steps(model, data, None)
        for _ in range(arguments.steps):
            next(steps)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as record:
            for _ in range(arguments.rounds * arguments.steps):
                next(steps)
    spent = {event.key: event.self_cpu_time_total for event in record.key_averages()}
    total = sum(spent.values())
    for operator, found in sorted(spent.items(), key=lambda entry: -entry[1]):
        if found > total / 100:
            print(f"  {operator:50s} {found / total:6.1%}")


def _copy(name: str, model: nn.Module) -> nn.Module:
    copy = build(name, CLASSES)
    copy.load_state_dict(model.state_dict())
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet20", "vgg16_l1"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="of each loop in a round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the plain loop's DataLoader")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: processor seconds of this process, for a machine that others use too (one thread, no workers)",
    )
    parser.add_argument("--profile", action="store_true", help="where a step's processor time goes")
    arguments = parser.parse_args()
    if arguments.clock == "cpu":
        arguments.threads, arguments.workers = 1, [0]
    torch.set_num_threads(arguments.threads)
    pixels = torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    data = ImageSet(pixels, torch.randint(CLASSES, (IMAGES,)), tuple("0123456789"))
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    for name in arguments.models:
        print(f"{name}, batch {BATCH}, {arguments.threads} threads, {arguments.clock} clock")
        if arguments.profile:
            profile(name, data, arguments)
        else:
            compare(name, data, arguments, clock)


if __name__ == "__main__":
    main()
