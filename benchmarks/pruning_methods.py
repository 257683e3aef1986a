"""Pruning methods against the plain alternative: the same samples of a 512-channel layer, taken in turn.

ThiNet's greedy choice, against the formula with its sums recomputed for each candidate. Reconstruction's choice by the
LARS path, against scikit-learn's Lasso bisected on its penalty until the count is exact. Both of ours start from
the samples too: the inner products are in the time. Then whole prunings of torchvision's ResNet-50, and what an image
more costs the methods that prune layer by layer, against running the calibration in full for each layer.
Run: python benchmarks/pruning_methods.py [--rounds 3] [--threads 2] [--skip-resnet50] [--only-passes]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
from sklearn.linear_model import Lasso
from torch import Tensor, nn

from classify.models import arch, build, channel_groups, example_input
from pruning.cut import prune
from pruning.methods.reconstruction import lasso_channels
from pruning.methods.thinet import keep_greedily
from pruning.reconstruct.least_squares import PatchSums
from pruning.reconstruct.passes import Passes
from pruning.reconstruct.responses import Hook, draw_places, evaluating, hooked, patches
from pruning.seeds import random_stream
from pruning.select import Selection

CHANNELS, KEPT, IMAGES, POSITIONS = 512, 256, 500, 10
GREEDY_SAMPLES, GREEDY_KEPT = 1000, 384  # the direct greedy choice takes many minutes at 5,000 and 256
PASSES_IMAGES = (4, 12)
ONE_SHOT = tuple(
    "random l1_filter uniform slimming soft_filter fpgm group_norm magnitude lamp thinet reconstruction".split()
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-resnet50", action="store_true")
    parser.add_argument("--only-passes", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.only_passes:
        run_in_parts()
        return

    slices, read = make_layer()
    # as in both papers, one output channel a sample: x[s, c] is its contribution of channel c
    output = torch.randint(CHANNELS, (len(read),), generator=random_stream(0, "outputs"))
    pairs = zip(read.split(500), output.split(500), strict=True)
    x = torch.cat([torch.einsum("sck,sck->sc", part, slices[o]) for part, o in pairs]).double()
    print(f"{CHANNELS} channels, 3x3, {KEPT} kept, {arguments.rounds} rounds, medians")
    print(f"{len(x)} samples; ThiNet's greedy choice: {GREEDY_SAMPLES} samples, {GREEDY_KEPT} kept", flush=True)

    few = x[torch.randperm(len(x))[:GREEDY_SAMPLES]]
    greedy = {"direct": lambda: greedy_direct(few), "ours": lambda: keep_greedily(few.T @ few, GREEDY_KEPT)}
    kept, seconds = in_turn(greedy, arguments.rounds)
    report("ThiNet", seconds, 20, kept["direct"] == kept["ours"])

    samples = x.numpy()
    target = samples.sum(1)
    lasso = {
        "bisected Lasso": lambda: lasso_bisected(samples, target, precompute=False),
        "bisected Lasso, Gram given": lambda: lasso_bisected(samples, target, precompute=True),
        "ours": lambda: lasso_channels(samples.T @ samples, samples.T @ target, KEPT),
    }
    kept, seconds = in_turn(lasso, arguments.rounds)
    report("Reconstruction", seconds, 5, kept["bisected Lasso"] == kept["ours"])

    _, seconds = in_turn({"layer": lambda: choose_from_patches(slices, read)}, arguments.rounds)
    print(f"ThiNet, all outputs, from {len(read)} patches: {statistics.median(seconds['layer']):.2f} s", flush=True)
    if not arguments.skip_resnet50:
        prune_resnet50()
        run_in_parts()


def make_layer() -> tuple[Tensor, Tensor]:
    """Kernel slices (O, C, K) of a 512-channel 3x3 convolution, and the patches (S, C, K) it reads."""
    torch.manual_seed(0)
    before = nn.Sequential(nn.Conv2d(64, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU())
    layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
    with torch.no_grad():
        inputs = before(torch.randn(IMAGES, 64, 7, 7))
        places = draw_places(inputs, POSITIONS, random_stream(0, "places"))
        read = patches(layer, inputs, places, torch.arange(CHANNELS)[:, None])
    return layer.weight.detach().flatten(2), read


def greedy_direct(x: Tensor) -> tuple[int, ...]:
    """The formula as it stands: for each candidate the sums over the removed set."""
    by_channel = x.T.contiguous()
    removed: list[int] = []
    while len(removed) < CHANNELS - GREEDY_KEPT:
        left = [c for c in range(CHANNELS) if c not in removed]
        costs = [float(by_channel[[*removed, c]].sum(0).square().sum()) for c in left]
        removed.append(left[int(np.argmin(costs))])
    return tuple(sorted(set(range(CHANNELS)) - set(removed)))


def lasso_bisected(x: np.ndarray, y: np.ndarray, *, precompute: bool) -> tuple[int, ...]:
    """Fit, count, halve the interval of penalties, until exactly the wanted number of channels is left."""
    low, high = 0.0, float(np.abs(x.T @ y).max() / len(x))
    for _ in range(60):
        alpha = (low + high) / 2
        fitted = Lasso(alpha=alpha, fit_intercept=False, precompute=precompute, max_iter=10_000).fit(x, y).coef_
        count = int((fitted != 0).sum())
        if count == KEPT:
            break
        low, high = (alpha, high) if count > KEPT else (low, alpha)
    return tuple(np.flatnonzero(fitted).tolist())


def choose_from_patches(slices: Tensor, read: Tensor) -> tuple[int, ...]:
    """What the method does to a layer: sums of patches, contributions to all outputs, the choice."""
    sums = PatchSums(slices, torch.ones(len(slices)))
    sums.add(read)
    return keep_greedily(sums.contributions()[0], KEPT)


def in_turn(ways: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """What each way gives, and its seconds in each round; they take turns, to share the machine's drift."""
    results: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            results[name] = way()
            seconds[name].append(time.perf_counter() - start)
    return results, seconds


def report(title: str, seconds: dict[str, list[float]], bar: float, same: bool) -> None:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        ratio = "" if name == "ours" else f", ratio {median / medians['ours']:.1f}"
        print(f"{title}, {name}: {1e3 * median:.1f} ms{ratio}")
    print(f"{title}: bar {bar:g}, the same channels: {same}", flush=True)


def prune_resnet50() -> None:
    """Seconds of each one-shot method, groups and checks included; calibration (8 images at 224) apart."""
    torch.manual_seed(0)
    model, example = build("resnet50", 1000), example_input("resnet50")
    images = torch.randn(8, *example.shape[1:])
    for method in ONE_SHOT:
        calibrating = 0.0

        def calibration(candidate: nn.Module) -> Iterator[Tensor]:
            nonlocal calibrating
            start = time.perf_counter()
            loss = candidate(images).logsumexp(1).mean()
            calibrating += time.perf_counter() - start
            yield loss

        start = time.perf_counter()
        groups = channel_groups("resnet50", model)
        selection = Selection(ratio=0.5, skip=("conv1",))
        prune(model, arch("resnet50"), groups, method, selection, batch=images[:2], seed=0, calibration=calibration)
        seconds = time.perf_counter() - start
        print(
            f"ResNet-50, {method}: {seconds - calibrating:.1f} s, calibration {calibrating:.1f} s (bar 60)", flush=True
        )


class WholePasses(Passes):
    """The plain way: the calibration is run in full for each layer."""

    def observe(self, hooks: Mapping[str, Hook]) -> Iterator[None]:
        with hooked(self.model, hooks), evaluating(self.model):
            for _ in self._calibration(self.model):
                yield


def run_in_parts() -> None:
    """CPU seconds that an image more costs on ResNet-50 at 224 px, by the difference of two numbers of images.

    CPU time, since the cores are often shared; what a pruning costs whatever the images (the choice, the refit, the
    checks) is told beside it.
    """
    torch.manual_seed(0)
    model, example = build("resnet50", 1000).eval(), example_input("resnet50")
    images = torch.randn(PASSES_IMAGES[1], *example.shape[1:])
    groups = channel_groups("resnet50", model)
    selection = Selection(ratio=0.5, skip=("conv1",))
    ways = {"whole passes": WholePasses, "ours": Passes}
    for method in ("thinet", "reconstruction"):
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        kept = []
        for n_images in PASSES_IMAGES:
            for name, way in ways.items():

                def calibration(candidate: nn.Module, n_images: int = n_images) -> Iterator[Tensor]:
                    for batch in images[:n_images].split(4):
                        yield candidate(batch).logsumexp(1).mean()

                start = time.process_time()
                with torch.no_grad(), mock.patch(f"pruning.methods.{method}.Passes", way):
                    found = prune(
                        model, arch("resnet50"), groups, method, selection, batch=images[:1], calibration=calibration
                    )
                seconds[name].append(time.process_time() - start)
                kept.append(found.plan.keep)
        few, many = PASSES_IMAGES
        each = {name: (b - a) / (many - few) for name, (a, b) in seconds.items()}
        for name, (a, _) in seconds.items():
            ratio = "" if name == "ours" else f", ratio {each[name] / each['ours']:.1f}"
            whole = a + (512 - few) * each[name]
            print(f"{method}, {name}: {each[name]:.2f} s an image, 512 images {whole:.0f} s{ratio} (bar 5)", flush=True)
        print(f"{method}: the same channels: {kept[0] == kept[1] and kept[2] == kept[3]}", flush=True)


if __name__ == "__main__":
    main()
