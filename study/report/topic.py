"""What the report has to know of a task, as data: its measures, its costs, its routes and their references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pruning.errors import Refusal
from study.plan.named import CLASSIFIER_PIPELINES, PIPELINES, Pipeline
from study.report.claims.about_classification import CLASSIFICATION_STATEMENTS
from study.report.claims.about_detection import DETECTION_STATEMENTS
from study.report.claims.statement import Statement
from study.report.routes import LATENCY_FROM, LATENCY_ROUNDS, LATENCY_TO
from study.report.rows import Comparison


@dataclass(frozen=True)
class Measure:
    """A quality of a network, higher is better: its column in the rows, its heading, its unit in a sentence."""

    key: str
    name: str
    unit: str = ""


@dataclass(frozen=True)
class Cost:
    """A cost: its column in the rows, its heading, how it is printed, and whether as a share of the dense one too."""

    key: str
    name: str
    form: Literal["count", "seconds", "milliseconds", "bytes"] = "count"
    relative: bool = True


@dataclass(frozen=True)
class Topic:
    """What a report is about: detection or classification.

    `measures`: the primary one first; `also` and `after_pruning`: those shown only where a route has them.
    `margin`: how far a result may lie below another and still count as no worse, in points of the primary measure;
    twice as far with fewer than `few_images` test images.
    `forward_costs`: the keys of the costs of one image that quality is drawn against. `answer_costs`: keys and words
    of the costs that the answer names. `curves`: kind of a training stage -> what it trains.
    """

    name: str
    product: str
    decimals: int
    margin: float
    margin_reason: str
    measures: tuple[Measure, ...]
    costs: tuple[Cost, ...]
    pipelines: Mapping[str, Pipeline]
    statements: tuple[Statement, ...]
    literature: str
    csv: tuple[str, ...]
    forward_costs: tuple[str, ...]
    answer_costs: tuple[str, ...]
    cost_caption: str
    curves: Mapping[str, str]
    few_images: int = 0
    also: tuple[Measure, ...] = ()  # of the finished network
    after_pruning: tuple[Measure, ...] = ()  # with what the last pruning removed

    @property
    def primary(self) -> Measure:
        """The measure that routes are compared by."""
        return self.measures[0]

    @property
    def references(self) -> tuple[str, ...]:
        """The named routes that every other is compared with."""
        return tuple(name for name, pipeline in self.pipelines.items() if pipeline.reference)

    @property
    def undrawn(self) -> tuple[str, ...]:
        """The named routes that figures leave out."""
        return tuple(name for name, pipeline in self.pipelines.items() if not pipeline.drawn)

    def measure(self, key: str) -> Measure:
        """The measure whose column is `key`."""
        return next(measure for measure in self.measures if measure.key == key)

    def print_name(self, name: str) -> str:
        """What a route is called in print: a user's own keeps its name."""
        return self.pipelines[name].print_name if name in self.pipelines else name

    def cost(self, key: str) -> Cost:
        """The cost whose column is `key`."""
        return next(cost for cost in self.costs if cost.key == key)


_REMOVED = (Measure("removed_of_asked_percent", "removed of asked (%)"),)
_TRAINING = (Cost("train_macs", "training MACs"), Cost("seconds", "time", "seconds", relative=False))
CHOOSING = Cost("prune_seconds", "choosing what to prune", "seconds", relative=False)  # runs of before have none
_ONE_IMAGE = (
    Cost("activation_bytes", "activations", "bytes"),
    Cost("latency_ms", "latency", "milliseconds", relative=False),
)
_ONE_IMAGE_CSV = ("activation_bytes", LATENCY_FROM, LATENCY_TO, LATENCY_ROUNDS)
SUMMED = (
    "Activations: the sum over one forward pass of one image in float32, counting the outputs of convolutions, linear"
    " layers and products of matrices, not those of normalisation, activation functions and pooling. Latency: the"
    " median, and from the lowest first to the highest third quartile over seeds; n is the number of times taken."
    " Removed of asked: of the channels or weights that the last pruning was to remove, those that it did."
)

DETECTION = Topic(
    name="detection",
    product="a pruned detector",
    decimals=1,
    margin=0.5,
    margin_reason="above the 0.2 to 0.3 AP by which runs of one detector differ on COCO",
    few_images=1000,
    measures=(Measure("AP", "AP", "AP"), Measure("AP50", "AP50"), Measure("AP75", "AP75")),
    also=(Measure("mask_AP", "mask AP"),),
    costs=(
        Cost("backbone_macs", "backbone MACs"),
        Cost("backbone_params", "backbone params"),
        Cost("detector_macs", "detector MACs"),
        *_ONE_IMAGE,
        *_TRAINING,
        CHOOSING,
    ),
    after_pruning=_REMOVED,
    pipelines=PIPELINES,
    statements=DETECTION_STATEMENTS,
    literature="report on detection: Scratch above Prune-C (prune_then_transfer) above Prune-D (transfer_then_prune).",
    csv=(
        *("AP", "AP50", "AP75", "APs", "APm", "APl"),
        *("backbone_params", "backbone_macs", "detector_params", "detector_macs"),
        *("latency_ms", "train_macs", "seconds", "precision"),
        *(measure.key for measure in _REMOVED),
        *_ONE_IMAGE_CSV,
    ),
    forward_costs=("backbone_macs",),
    answer_costs=("backbone_macs", "train_macs"),
    cost_caption="Detector MACs, activations and latency: one image at the evaluation size.",
    curves={"train_detector": "detectors", "train_classifier": "classifiers"},
)

CLASSIFICATION = Topic(
    name="classification",
    product="a pruned classifier",
    decimals=2,
    margin=0.5,
    margin_reason="the tables of the study call differences of up to about half a point comparable",
    measures=(
        Measure("top1", "top-1 (%)", "% top-1"),
        Measure("top5", "top-5 (%)"),
    ),
    after_pruning=(
        *_REMOVED,
        Measure("pruned_top1", "right after pruning (%)"),
        Measure("recalibrated_top1", "then recalibrated (%)"),
    ),
    costs=(
        Cost("macs", "MACs"),
        Cost("params", "params"),
        *_ONE_IMAGE,
        Cost("epochs", "epochs", relative=False),
        *_TRAINING,
        CHOOSING,
    ),
    pipelines=CLASSIFIER_PIPELINES,
    statements=CLASSIFICATION_STATEMENTS,
    literature=(
        "report that pruned structures trained from scratch are as good as fine-tuned ones, except for single weights "
        "on ImageNet."
    ),
    csv=(
        *("top1", "top5", "val_top1", "pruned_top1", "recalibrated_top1", "params", "macs", "dense_params"),
        *("dense_macs", "epochs", "latency_ms", "train_macs", "seconds", "precision"),
        *(measure.key for measure in _REMOVED),
        *_ONE_IMAGE_CSV,
    ),
    forward_costs=("params", "macs"),
    answer_costs=("macs", "train_macs"),
    cost_caption=(
        "MACs and params of networks that lost single weights count the weights left; latency is that of the "
        "computation as it runs, one image; epochs are those of the last training."
    ),
    curves={"train_classifier": "classifiers"},
)

TOPICS = {topic.name: topic for topic in (DETECTION, CLASSIFICATION)}


def topic_of(comparison: Comparison) -> Topic:
    """What a comparison is about; ValueError lists the known ones."""
    if comparison.task not in TOPICS:
        raise Refusal(f"unknown task {comparison.task!r} in a comparison; known: {', '.join(TOPICS)}")
    return TOPICS[comparison.task]
