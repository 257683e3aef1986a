"""How much of a difference is due to the test images: a paired bootstrap over images, nested in seeds.

Everingham et al., "Assessing the significance of performance differences on the PASCAL VOC challenges via
bootstrapping" (2013). Images are drawn with replacement, the same for all routes and seeds; the average precision of a
draw follows from the matches that the evaluation kept (detect/matches.py), an image drawn twice counting as two. Of
equal scores, all copies of one detection go before the next detection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from detect.matches import HIT, IGNORED, Matches

Array = NDArray[np.float64]
Counts = NDArray[np.float32]  # (images, draws): how often each image was drawn; whole numbers
Draws = Mapping[int, Array]  # of one route: seed -> the metric in each draw

REPLICATES = 1000
COCO_RECALLS = np.linspace(0.0, 1.0, 101)
VOC07_RECALLS = np.arange(0.0, 1.1, 0.1)
_CHUNK = 4_000_000  # numbers in the largest array: 16 MB
_EPSILON = np.spacing(1)  # as pycocotools divides


def draw_images(images: int, replicates: int = REPLICATES, seed: int = 0) -> Counts:
    """Draws of as many images as there are, with replacement."""
    # One seed for all: whoever draws from as many images gets the same draws. Routes that are read one by one are so
    # paired draw by draw, and the noise that they share is not in their difference.
    generator = np.random.default_rng(seed)
    counts = np.empty((images, replicates), dtype=np.float32)
    for b in range(replicates):
        counts[:, b] = np.bincount(generator.integers(images, size=images), minlength=images)
    return counts


@dataclass(frozen=True)
class Precisions:
    """Average precision of E evaluations in B draws, 0..100.

    `by_iou` (E, B, T): mean over the classes that have boxes in the draw. `by_class` (E, B, K): mean over the IoUs, NaN
    where the draw has no box of the class.
    """

    by_iou: Array
    by_class: Array

    @property
    def ap(self) -> Array:
        """Mean over classes and IoUs (E, B): COCO's AP."""
        return self.by_iou.mean(axis=2)


def average_precisions(
    evaluations: Sequence[Matches], counts: Counts, recalls: Array | None = COCO_RECALLS
) -> Precisions:
    """AP of each evaluation in each draw: the mean over `recalls` of the best precision there or at a higher recall.

    `recalls=None`: the area below that curve, VOC's continuous metric. ValueError unless all are of the same images.
    """
    first = evaluations[0]
    if any(m.classes != first.classes or not np.array_equal(m.boxes, first.boxes) for m in evaluations):
        raise ValueError("these evaluations are not of the same images, classes and boxes")
    draws, classes = counts.shape[1], len(first.classes)
    by_iou = np.zeros((len(evaluations), draws, len(first.ious)))
    by_class = np.full((len(evaluations), draws, classes), np.nan)
    defined = np.zeros(draws)
    for k in range(classes):
        # whole numbers are exact in float32 up to 2^24, far more than there are boxes or detections
        boxes = (first.boxes[:, k].astype(np.float32) @ counts).astype(np.int64)  # (B,), to be found in each draw
        there = boxes > 0
        reached = _Reached.of(boxes, recalls)
        for e, matches in enumerate(evaluations):
            precision = _class_precision(_Runs.of(*matches.of_class(k), len(counts)), counts, reached)  # (T, B)
            by_iou[e, there] += precision[:, there].T
            by_class[e, there, k] = precision[:, there].mean(axis=0)
        # a class without a box in a draw has no AP in it, and no part in its mean
        defined += there
    with np.errstate(invalid="ignore"):  # a draw without a box has no AP
        return Precisions(100 * by_iou / defined[:, None], 100 * by_class)


def accuracies(correct: NDArray[np.bool_], counts: Counts) -> Array:
    """Accuracy 0..100 of each of E evaluations (E, images) in each draw -> (E, B)."""
    return 100.0 * (correct.astype(np.float32) @ counts).astype(np.float64) / counts.sum(axis=0)


@dataclass(frozen=True)
class _Reached:
    """Share of the recalls that a number of hits reaches, in each draw: table[start + hits], 0 without a hit."""

    table: Array
    start: NDArray[np.int64]  # (B,)

    @classmethod
    def of(cls, boxes: NDArray[np.int64], recalls: Array | None) -> _Reached:
        """`boxes` (B,): to be found in each draw."""
        # Draws with equally many boxes share a table of n + 1 entries. The tables stand behind each other, and `start`
        # says where that of a draw begins.
        numbers, which = np.unique(boxes, return_inverse=True)
        parts = []
        for n in numbers:
            recall = np.arange(n + 1) / max(n, 1)
            # how many of the listed recalls are at or below the one that so many hits reach
            share = recall if recalls is None else np.searchsorted(recalls, recall, side="right") / len(recalls)
            share[0] = 0.0  # the precision at recall 0 is that of the first hit
            parts.append(share)
        return cls(np.concatenate(parts), np.cumsum([0, *(numbers[:-1] + 1)])[which])

    def part(self, draws: slice) -> _Reached:
        return _Reached(self.table, self.start[draws])


@dataclass(frozen=True)
class _Runs:
    """Detections of one class as runs of hits that no miss interrupts, last run first, all IoUs side by side.

    Precision rises within a run, so the best precision from any hit on is found at ends of runs, and only those are
    looked at. Step j holds the j-th last run of those IoUs that have so many: rows ends[j]:ends[j + 1], IoUs in
    `order`.
    """

    hits: csr_matrix  # (rows, images): hits of each run
    misses: csr_matrix  # (rows, images): misses between the run before and this one
    ends: NDArray[np.int64]
    order: NDArray[np.int64]  # (T,) IoUs by falling number of runs

    @classmethod
    def of(cls, images: NDArray[np.integer], flags: NDArray[np.uint8], n_images: int) -> _Runs:
        """From the images (D,) and flags (D, T) of the detections, best score first."""
        numbers, read = [], []
        for column in flags.T:
            kept = column != IGNORED
            hit = column[kept] == HIT
            begins = hit.copy()
            begins[1:] &= ~hit[:-1]
            # a hit is of the run begun last, a miss comes before the next; no precision is read after the last hit
            run, number = np.cumsum(begins) - hit, int(begins.sum())
            numbers.append(number)
            read.append((number - 1 - run[run < number], hit[run < number], images[kept][run < number]))
        order = np.argsort(-np.array(numbers), kind="stable")
        # IoUs with that many runs come first in `order`: of each step they are the first rows, one row (lane) an IoU
        active = (np.array(numbers)[order] > np.arange(max(numbers))[:, None]).sum(axis=1)
        ends = np.concatenate(([0], np.cumsum(active)))
        row = np.concatenate([ends[read[t][0]] + lane for lane, t in enumerate(order)])
        hit, image = (np.concatenate([read[t][part] for t in order]) for part in (1, 2))
        hits, misses = (_ones(row[here], image[here], (int(ends[-1]), n_images)) for here in (hit, ~hit))
        return cls(hits, misses, ends, order)


def _ones(rows: NDArray[np.integer], columns: NDArray[np.integer], shape: tuple[int, int]) -> csr_matrix:
    """A 1 at each of these places; those named twice add up."""
    return csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)


def _class_precision(runs: _Runs, counts: Counts, reached: _Reached) -> Array:
    """AP 0..1 of one class at each IoU in each draw -> (T, B); 0 without a hit."""
    draws = counts.shape[1]
    found = np.zeros((len(runs.order), draws))
    if len(runs.ends) > 1:
        # draws in parts, so that an array over all rows stays within the chunk
        size = max(1, _CHUNK // int(runs.ends[-1]))
        for start in range(0, draws, size):
            here = slice(start, start + size)
            found[runs.order, here] = _walk(runs, counts[:, here], reached.part(here))
    return found


def _walk(runs: _Runs, counts: Counts, reached: _Reached) -> Array:
    """The area below the falling curve, summed from the last run of hits to the first: (IoUs in their order, B)."""
    steps = [slice(*ends) for ends in zip(runs.ends[:-1], runs.ends[1:], strict=True)]
    hits, misses = runs.hits @ counts, runs.misses @ counts  # (rows, B)
    right = np.zeros((len(runs.order), counts.shape[1]))  # hits up to the end of the run, and all detections up to it
    seen = np.zeros_like(right)
    # first the sums over all runs, which is where the way back begins; misses behind the last hit are in no row
    for step in steps:
        active = step.stop - step.start
        right[:active] += hits[step]
        seen[:active] += misses[step]
    seen += right
    share = np.take(reached.table, (right + reached.start).astype(np.intp))
    area, best, work, before = (np.zeros_like(right) for _ in range(4))
    place = np.empty(right.shape, dtype=np.intp)
    # At each step `right` and `seen` are of the end of a run. The best precision from there on times the share of the
    # recalls that lie within the run is its part of the area. Then its hits, and the misses before it, are taken away:
    # that is the end of the run before. A run of which a draw has no image adds nothing: it covers no recall, and the
    # precision at its end is no higher than at the end of the run before.
    for step in steps:
        a = slice(0, step.stop - step.start)
        np.add(seen[a], _EPSILON, out=work[a])
        np.divide(right[a], work[a], out=work[a])
        np.maximum(best[a], work[a], out=best[a])
        right[a] -= hits[step]
        seen[a] -= hits[step]
        seen[a] -= misses[step]
        np.add(right[a], reached.start, out=place[a], casting="unsafe")
        np.take(reached.table, place[a], out=before[a], mode="clip")  # all are in range; `raise` would copy `out`
        np.subtract(share[a], before[a], out=work[a])
        work[a] *= best[a]
        area[a] += work[a]
        share[a] = before[a]
    return area


@dataclass(frozen=True)
class ImageNoise:
    """How the mean difference of two routes over `n` seeds changes with the test images.

    `variance`: of the mean difference over draws. `interval`: 95 % of the draws lie in it. `both`: the part of
    `variance` that comes from each seed's own way with each image; the deviation between seeds has this part too.
    """

    variance: float
    interval: tuple[float, float]
    both: float
    n: int

    @property
    def standard_error(self) -> float:
        return float(np.sqrt(self.variance))


def image_noise(route: Draws, reference: Draws) -> ImageNoise | None:
    """Of `route - reference` over the seeds that both have; None where they have none in common.

    Over draws of I images a single seed's difference varies by a/I + b/I, the mean of n seeds by a/I + b/(nI); `both`
    is b/(nI).
    """
    seeds = [seed for seed in route if seed in reference]
    if not seeds:
        return None
    differences = np.stack([route[seed] - reference[seed] for seed in seeds])  # (n, B)
    differences = differences[:, np.isfinite(differences).all(axis=0)]  # a draw without any box has no AP
    mean = differences.mean(axis=0)
    variance = float(mean.var(ddof=1))
    single = float(differences.var(axis=1, ddof=1).mean())
    low, high = np.quantile(mean, (0.025, 0.975))
    # single - variance = b/I - b/(nI) = (n - 1) times b/(nI)
    both = (single - variance) / (len(seeds) - 1) if len(seeds) > 1 else 0.0
    return ImageNoise(variance, (float(low), float(high)), both, len(seeds))


@dataclass(frozen=True)
class Variance:
    """Of a mean difference, by what it comes from: other seeds, other test images, and the part that both count."""

    seeds: float
    images: float
    both: float

    @property
    def total(self) -> float:
        """For other seeds and other images; never less than for either alone."""
        return max(self.seeds + self.images - self.both, self.seeds, self.images)

    def df(self, seeds_df: float) -> float:
        """Degrees of freedom of `total` by Satterthwaite's rule; `seeds` has `seeds_df`, the images' part many."""
        # total^2 / (sum of each part^2 / its df), where the images' part, with many, adds nothing to the sum
        return seeds_df * (self.total / self.seeds) ** 2 if self.seeds else float("inf")


def split_variance(seeds: float, noise: ImageNoise) -> Variance:
    """`seeds`: the squared standard error of the mean difference on these test images, from the block design."""
    return Variance(seeds, noise.variance, noise.both)
