"""On a GPU: does everything compute there what it should, and how fast is a step of ours against the plain one?

It needs a GPU and no data, and takes four minutes; what it printed is in docs/results.md.

`checks`: pruning by every method there, with masked and smaller networks compared; the first steps of a training
against those of the CPU; two equal trainings bit by bit; a training cut short and continued against one that was not.
`steps`: seconds of a training step and the peak of memory, ours in each precision against plain PyTorch and plain
Detectron2 on the same batch, rounds taken in turn; plain with mixed precision too, as their own users write it. Also
counted: how often the CPU waits for the GPU in a step (`torch.cuda.set_sync_debug_mode`).
`loading`: images a second that the workers of the ImageNet data set decode, against what the GPU takes.
Run: python benchmarks/gpu.py [checks] [steps] [loading] [--rounds 10]
"""

import argparse
import statistics
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from detector_step import PLAIN, SMALL, Case, foreach_sgd, make_batch, make_detector, our_trainer, repeat
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.utils.events import EventStorage
from PIL import Image
from torch import Tensor, nn

from classify.data import open_splits
from classify.data.images import Batch, ImageSet, stream
from classify.models import build
from classify.settings import TrainRun, TrainSettings
from classify.step import TrainingStep
from classify.train import train_classifier
from detect.build import build_detector
from detect.cpu.roi_align import SeparableROIAlign
from detect.data import CocoDataset
from detect.scenes import write_scenes
from detect.settings import DetectorSettings
from detect.settings import TrainRun as DetectorRun
from detect.settings import TrainSettings as DetectorTraining
from detect.train import train_detector
from pruning.cut import Arch, prune
from pruning.design.pattern import Pattern
from pruning.graph.groups import find_groups
from pruning.methods import METHODS
from pruning.methods.guided import GuidedOptions
from pruning.select import Selection
from training.compiled import compiled
from training.device import deterministic_algorithms, usable_cores
from training.layout import channels_last

DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COCO_SIZED = Case("resnet50", 800, 4)
IMAGENET = 224, 128  # pixels, images in a batch
LOADED = 2048  # images


def main() -> None:
    parts = {"checks": checks, "steps": steps, "loading": loading}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="all, if none is named")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu.py: PyTorch sees no GPU here")
    card = torch.cuda.get_device_properties(0)
    print(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {usable_cores()} cores, PyTorch {torch.__version__}")
    for name in arguments.parts or parts:
        print(f"\n{name}", flush=True)
        parts[name](arguments.rounds)


# ---------------------------------------------------------------------------------------------------------- checks


def checks(rounds: int) -> None:
    """One line for each check; what fails is printed and the others go on."""
    named: dict[str, Callable[[], str]] = {
        f"prune by {name}": lambda name=name: pruned_on_gpu(name)
        for name in METHODS  # type: ignore[misc]
    }
    for precision in DTYPES:
        named[f"classifier, {precision}: same bits"] = lambda p=precision: repeated(classifier_training, p)  # type: ignore[misc]
        named[f"classifier, {precision}: continued"] = lambda p=precision: continued(classifier_training, p)  # type: ignore[misc]
        named[f"detector, {precision}: same bits"] = lambda p=precision: repeated(detector_training, p)  # type: ignore[misc]
        named[f"detector, {precision}: continued"] = lambda p=precision: continued(detector_training, p)  # type: ignore[misc]
    named["classifier: as on the CPU"] = lambda: as_on_cpu(classifier_training)
    named["detector: as on the CPU"] = lambda: as_on_cpu(detector_training)
    for name, check in named.items():
        try:
            found = check()
        except Exception:  # whatever it is, the other checks are wanted too
            found = "FAILED\n" + traceback.format_exc()
        print(f"  {name:36s} {found}", flush=True)


def pruned_on_gpu(method: str) -> str:
    """How far masked and smaller network differ, and whether the choice is the CPU's."""
    chosen, options = {}, None
    if method == "guided":
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
            file.write(Pattern(widths=(0.5,)).to_json())
        options = GuidedOptions(patterns=(file.name,))
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = build("resnet20", 10)
        images, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 10
        model, images, labels = model.to(device), images.to(device), labels.to(device)

        def loss(network: nn.Module, images: Tensor = images, labels: Tensor = labels) -> Iterator[Tensor]:
            yield F.cross_entropy(network(images), labels)

        groups = find_groups(model, images[:1], stages=("layer1", "layer2", "layer3"))
        chosen[device] = prune(
            model, Arch("resnet20", {}), groups, method, Selection(0.4), batch=images, seed=0, calibration=loss,
            options=options,
        )  # fmt: skip
    pruned = chosen["cuda"]
    where = {t.device.type for t in [*pruned.model.parameters(), *pruned.masks.values()]}
    same = chosen["cpu"].plan == pruned.plan
    difference = "" if pruned.difference is None else f"masked against smaller {pruned.difference:.1e}, "
    return f"{difference}on {' and '.join(sorted(where))}, {'the same' if same else 'NOT the same'} choice as the CPU"


@dataclass(frozen=True)
class Trained:
    """A network after a few steps, and the losses that were reported."""

    state: Mapping[str, Tensor]
    losses: list[float]


Training = Callable[[str, str, Path, int | None], Trained]


class CutShort(Exception):
    """A training that was told to end early."""


def classifier_training(device: str, precision: str, folder: Path, cut: int | None) -> Trained:
    """ResNet-20 for 16 steps on noise of two classes; from `folder`'s checkpoint if there is one; `cut`: steps."""
    torch.manual_seed(0)
    labels = torch.arange(512) % 2
    pixels = (torch.rand(512, 3, 32, 32) * 128 + 100 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    model = build("resnet20", 2).to(device)
    settings = TrainSettings(epochs=1, batch_size=32, lr=0.01, momentum=0.9, weight_decay=1e-4, augmentation="cifar")
    losses: list[float] = []

    def report(step: int, total: int, metrics: Mapping[str, float]) -> None:
        losses.append(metrics["loss"])
        if step == cut:
            raise CutShort

    run = TrainRun(seed=0, mean=MEAN, std=STD, precision=precision, report_every=1, checkpoint_minutes=0)
    train_classifier(
        model, ImageSet(pixels, labels, ("dark", "light")), settings=settings, run=run,
        checkpoint=folder / "classifier.pt", report=report,
    )  # fmt: skip
    return Trained({name: tensor.cpu() for name, tensor in model.state_dict().items()}, losses)


def detector_training(device: str, precision: str, folder: Path, cut: int | None) -> Trained:
    """The demo's detector for 16 steps on scenes of digits; as `classifier_training`."""
    torch.manual_seed(0)
    split = write_scenes(folder.parent / "scenes", images={"train": 60}, image_size=128)["train"]
    case = SMALL | {"anchor_sizes": (24, 32, 40, 52), "anchor_ratios": (1.0, 1.6), "rpn_batch_size": 64}
    settings = DetectorSettings(image_size=128, max_image_size=128, norm="BN", **case)
    detector, cfg = build_detector(build("resnet10", 10, {"width": 0.5}), settings, num_classes=10, device=device)
    losses: list[float] = []

    def report(step: int, total: int, metrics: Mapping[str, float]) -> None:
        losses.append(sum(value for name, value in metrics.items() if name.startswith("loss")))
        if step == cut:
            raise CutShort

    train_detector(
        detector, cfg, dataset=CocoDataset(split.annotations, split.image_dir), checkpoint=folder / "detector.pt",
        settings=DetectorTraining(iterations=16, batch_size=6, lr=0.01, clip_norm=5.0, momentum=0.9,
                                  weight_decay=1e-4, schedule="cosine", flip=False),
        run=DetectorRun(seed=0, precision=precision, report_every=1, checkpoint_minutes=0), report=report,
    )  # fmt: skip
    return Trained({name: tensor.cpu() for name, tensor in detector.state_dict().items()}, losses)


def repeated(training: Training, precision: str) -> str:
    """Two equal trainings, with deterministic operations asked for."""
    found = []
    with tempfile.TemporaryDirectory() as folder, deterministic_algorithms(True, "cuda"):
        for name in "ab":
            (place := Path(folder) / name).mkdir()
            found.append(training("cuda", precision, place, None))
    return words(*found)


def continued(training: Training, precision: str) -> str:
    """A training cut short before a step's checkpoint and continued, against one that was not."""
    with tempfile.TemporaryDirectory() as folder, deterministic_algorithms(True, "cuda"):
        for name in "ab":
            (Path(folder) / name).mkdir()
        whole = training("cuda", precision, Path(folder) / "a", None)
        with suppress(CutShort):
            training("cuda", precision, Path(folder) / "b", 10)
        return words(whole, training("cuda", precision, Path(folder) / "b", None))


def as_on_cpu(training: Training) -> str:
    """float32 on both, without TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        found = []
        for device in ("cpu", "cuda"):
            with tempfile.TemporaryDirectory() as folder:
                (place := Path(folder) / "a").mkdir()
                found.append(training(device, "float32", place, None))
    finally:
        torch.backends.cudnn.allow_tf32 = before
    return words(*found)


def words(a: Trained, b: Trained) -> str:
    """Equal to the bit, or how far weights and the last loss are apart."""
    if all(torch.equal(a.state[name], b.state[name]) for name in a.state):
        return "equal to the bit"
    ours, theirs = (torch.cat([t.double().flatten() for t in found.state.values()]) for found in (a, b))
    apart = float((ours - theirs).norm() / ours.norm())
    first, last = (f"{a.losses[i]:.6f} / {b.losses[i]:.6f}" for i in (0, -1))
    return f"weights {apart:.1e} apart, losses first {first}, last {last}"


# ----------------------------------------------------------------------------------------------------------- steps


def steps(rounds: int) -> None:
    compare("ResNet-50, 224 px, batch 128", imagenet_loops, IMAGENET[1], rounds)
    compare("ResNet-56, CIFAR, batch 128", cifar_loops, 128, rounds)
    compare("Faster R-CNN, ResNet-50-FPN, 800 px, batch 4", detector_loops, COCO_SIZED.batch, rounds)
    compare("the demo's detector, 128 px, batch 6", demo_loops, 6, rounds)


Loops = Iterator[tuple[str, Callable[[], object]]]


def compare(title: str, loops: Callable[[ExitStack], Loops], images: int, rounds: int) -> None:
    """Print each loop's images a second, its ratio to the first row, its peak of memory and its waits in a step."""
    print(f"  {title}")
    with ExitStack() as stack:
        found = dict(loops(stack))
        peaks, waits, where = {}, {}, Counter[str]()
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for name, step in found.items():
            for _ in range(5):  # kernels are chosen, memory is laid out
                step()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
            waits[name] = count_waits(step, where if name.startswith("ours") else Counter())
            peaks[name] = torch.cuda.max_memory_allocated() - held
        for _ in range(rounds):
            for name, step in found.items():
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(5):
                    step()
                torch.cuda.synchronize()
                seconds[name].append((time.perf_counter() - start) / 5)
    first = next(iter(found))
    for name, times in seconds.items():
        ratios = sorted(a / b for a, b in zip(seconds[first], times, strict=True))
        ratio = f"{statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        speed = images / statistics.median(times)
        print(f"    {name:32s} {speed:8.1f} images/s  {ratio}  {peaks[name] / 2**30:5.1f} GiB  {waits[name]:3d} waits")
    print("    where ours waits:", ", ".join(f"{place} x {n}" for place, n in where.most_common(12)) or "nowhere")
    torch.cuda.empty_cache()


def count_waits(step: Callable[[], object], said: Counter[str]) -> int:
    """How often the CPU waits for the GPU in a step; `said` counts where."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [f"{Path(w.filename).name}:{w.lineno}" for w in found if "synchroniz" in str(w.message)]
    said.update(waits)
    return len(waits)


def imagenet_loops(stack: ExitStack) -> Loops:
    size, batch = IMAGENET
    images = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8).pin_memory()
    yield from classifier_loops(stack, "resnet50", images, torch.randint(1000, (batch,)).pin_memory())


def cifar_loops(stack: ExitStack) -> Loops:
    images = torch.randint(256, (128, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(10, (128,))
    yield from classifier_loops(stack, "resnet56", images, labels)
    data = ImageSet(images.repeat(40, 1, 1, 1), labels.repeat(40), tuple("0123456789"))
    model = build("resnet56", 10).cuda()
    stack.enter_context(channels_last(model, dtype=torch.bfloat16))
    training = TrainingStep(model, _settings(128), TrainRun(mean=MEAN, std=STD, seed=0), torch.bfloat16)

    def plan() -> Iterator[Batch]:
        epoch = 0
        while True:
            for i, index in enumerate(torch.randperm(len(data), generator=stream(0, epoch)).split(128)):
                yield Batch(index, (0, epoch, i))
            epoch += 1

    batches = data.batches(plan(), "cifar")
    yield "ours, bfloat16, with its data", lambda: training.take(*next(batches), 128, step=0, lr=0.1)


def classifier_loops(stack: ExitStack, name: str, images: Tensor, labels: Tensor) -> Loops:
    classes = 1000 if name == "resnet50" else 10
    for precision, layout in (("float32", torch.contiguous_format), ("bfloat16", torch.channels_last)):
        yield f"plain, {precision}", plain_classifier(build(name, classes).cuda(), images, labels, precision, layout)
    for precision, dtype in DTYPES.items():
        model = build(name, classes).cuda()
        stack.enter_context(channels_last(model, dtype=dtype))
        training = TrainingStep(model, _settings(len(images)), TrainRun(mean=MEAN, std=STD, seed=0), dtype)
        yield (
            f"ours, {precision}",
            lambda training=training: training.take(images, labels, len(images), step=0, lr=0.1),  # type: ignore[misc]
        )
    model = build(name, classes).cuda()
    stack.enter_context(channels_last(model, dtype=torch.bfloat16))
    stack.enter_context(compiled(model))
    training = TrainingStep(model, _settings(len(images)), TrainRun(mean=MEAN, std=STD, seed=0), torch.bfloat16)
    yield "ours, bfloat16, compiled", lambda: training.take(images, labels, len(images), step=0, lr=0.1)


def _settings(batch: int) -> TrainSettings:
    return TrainSettings(epochs=1, batch_size=batch, lr=0.1, momentum=0.9, weight_decay=1e-4)


def plain_classifier(
    model: nn.Module, images: Tensor, labels: Tensor, precision: str, layout: torch.memory_format
) -> Callable[[], object]:
    """A step as PyTorch's tutorials write it, from the same uint8 images on the CPU."""
    model.train().to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-4)
    mean, std = (torch.tensor(v).view(3, 1, 1).cuda() for v in (MEAN, STD))

    def step() -> None:
        inputs = (images.cuda(non_blocking=True).float() / 255 - mean) / std
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=DTYPES[precision], enabled=precision != "float32"):
            loss = F.cross_entropy(model(inputs.to(memory_format=layout)), labels.cuda(non_blocking=True))
        loss.backward()
        optimizer.step()

    return step


def detector_loops(stack: ExitStack) -> Loops:
    yield from detectors(stack, COCO_SIZED, "BN")  # frozen statistics of random weights diverge


def demo_loops(stack: ExitStack) -> Loops:
    detector = SMALL | {"anchor_sizes": (24, 32, 40, 52), "anchor_ratios": (1.0, 1.6), "rpn_batch_size": 64}
    yield from detectors(stack, Case("resnet10", 128, 6, options={"width": 0.5}, detector=detector), "BN")


def detectors(stack: ExitStack, case: Case, norm: str) -> Loops:
    """A step of Detectron2's trainers and of ours, all from the same weights."""
    batch = make_batch(case)
    weights = make_detector(case, norm).state_dict()
    storage = stack.enter_context(EventStorage(0))

    def step_of(trainer: SimpleTrainer) -> Callable[[], object]:
        trainer.storage, trainer.iter = storage, 0
        return trainer.run_step

    for name, kind in (("plain, float32", SimpleTrainer), ("plain, float16 (AMPTrainer)", AMPTrainer)):
        theirs = make_detector(case, norm, PLAIN, (SeparableROIAlign,))
        theirs.load_state_dict(weights)
        yield name, step_of(kind(theirs.cuda().train(), repeat(batch), foreach_sgd(theirs)))
    for name, dtype in DTYPES.items():
        ours = make_detector(case, norm)
        ours.load_state_dict(weights)
        stack.enter_context(channels_last(ours.cuda().train(), dtype=dtype))
        yield f"ours, {name}", step_of(our_trainer(ours, batch, dtype))
    ours = make_detector(case, norm)
    ours.load_state_dict(weights)
    stack.enter_context(channels_last(ours.cuda().train(), dtype=torch.bfloat16))
    stack.enter_context(compiled(ours.backbone))
    yield "ours, bfloat16, compiled", step_of(our_trainer(ours, batch, torch.bfloat16))


# --------------------------------------------------------------------------------------------------------- loading


def loading(rounds: int) -> None:
    """Print the images a second that come from JPEG files of 500 x 375 pixels, by workers."""
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name))
        for workers in (0, usable_cores() // 2, usable_cores()):
            train = open_splits("folder", root=Path(name), path="jpeg", in_memory=False, workers=workers).train
            plan = (Batch(index, (0, i)) for i, index in enumerate(torch.arange(len(train)).split(64)))
            batches = train.batches(plan, "imagenet")
            next(batches)  # the workers are there
            start, seen = time.perf_counter(), 0
            for images, _ in batches:
                seen += len(images)
            print(f"  {workers:2d} workers: {seen / (time.perf_counter() - start):7.1f} images/s", flush=True)


def write_images(root: Path) -> None:
    """LOADED smooth pictures in two classes."""
    for label in "ab":
        (root / "jpeg" / label).mkdir(parents=True)
    torch.manual_seed(0)
    for i in range(LOADED):
        coarse = torch.rand(1, 3, 12, 16)
        pixels = F.interpolate(coarse, (375, 500), mode="bilinear")[0].mul(255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(root / "jpeg" / "ab"[i % 2] / f"{i}.jpg", quality=90)


if __name__ == "__main__":
    main()
