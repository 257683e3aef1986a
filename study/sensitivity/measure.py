"""Accuracy of a trained classifier against how much of one layer is removed, layer by layer; nothing is retrained.

Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (arXiv 1608.08710), section 3.2 and figure 2. A layer is a
group of channels that can only be removed together. Each is pruned as `prune.layers` does it while `prune.ratio` is 0,
and really cut. Measured is the validation split, since what is read off the curves is a choice; the test split is not
read.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from classify.calibration import CalibrationImages
from classify.data import Splits
from classify.data.images import Images, balanced_indices
from classify.evaluate import evaluate_classifier
from pruning.cost import LayerCosts, count_params
from pruning.cut import prune_by_choice
from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.methods import DEFAULT, Calibration, Choice, MethodOptions, Request, get_method
from pruning.select import NotNarrowed, Selection, count_to_keep, eligible
from study.config.pruning import CalibrationData
from study.config.sections import Machine
from study.plan.checks import check_device
from study.stages.data import dataset_of, open_classification
from study.stages.network import Network, dense_groups, load_model
from study.stages.prune import CALIBRATION_BATCH_SIZE, CHECKED_IMAGES
from study.stages.stage import device_of, load_stage
from training.options import check_level, read_method_options

_FEWEST_IMAGES = 2  # a standard error needs them


@dataclass(frozen=True)
class Asked:
    """What is to be measured.

    `ratios`: the fractions removed of a layer's channels. `n_images`: at most, the classes taking turns. `options`: of
    the method, by name.
    """

    ratios: Sequence[float]
    method: str = DEFAULT
    options: Mapping[str, object] = field(default_factory=dict)
    scope: Literal["inner", "all"] = "inner"
    n_images: int = 2000

    def __post_init__(self) -> None:
        for ratio in self.ratios:
            if not 0 <= ratio < 1:
                raise Refusal(f"--ratios {ratio:g}: a ratio is the fraction removed, 0 <= ratio < 1")
        if not any(self.ratios):
            raise Refusal("--ratios: none of them removes anything")
        if self.n_images < _FEWEST_IMAGES:
            raise Refusal(f"--images {self.n_images}: at least {_FEWEST_IMAGES} are needed")

    def read_options(self) -> MethodOptions:
        """The method's options; ValueError for a method that does not rank the channels of each layer by themselves."""
        options = read_method_options(self.method, self.options)
        check_level(self.method, options, "layer")
        if get_method(self.method).unstructured(options):
            raise Refusal(f"method {self.method!r} removes single weights; the curves are of channels")
        return options


@dataclass(frozen=True)
class Point:
    """The classifier with `kept` channels in one layer.

    `top1` in percent; `lost`: points of it, with the `standard_error` over images of this paired difference.
    `params_saved`, `macs_saved`: of the whole classifier, other layers that read the channels included.
    """

    ratio: float
    kept: int
    top1: float
    lost: float
    standard_error: float
    params_saved: int
    macs_saved: int


@dataclass(frozen=True)
class Curve:
    """A layer of `width` channels, by rising ratio; ratios that would leave none of them have no point."""

    layer: str
    width: int
    points: tuple[Point, ...]

    @property
    def mean_lost(self) -> float:
        """Points of accuracy, mean over the ratios."""
        return sum(point.lost for point in self.points) / len(self.points)

    def bears(self, tolerance: float) -> float:
        """The highest ratio up to which the layer loses no more than `tolerance` points; 0 if no ratio is as low."""
        held = 0.0
        for point in self.points:
            if point.lost > tolerance:
                break
            held = point.ratio
        return held


@dataclass(frozen=True)
class Subject:
    """A trained classifier and the validation images that it is measured on, of the `n_validation` that there are.

    `request` asks the method for nothing yet: ratio 0 in every layer. `correct` (n,): which images are classified right
    as it is.
    """

    run: str
    network: Network
    model: nn.Module
    images: Images
    n_validation: int
    request: Request[MethodOptions]
    asked: Asked
    correct: Tensor

    @property
    def example(self) -> Tensor:
        """An image batch (1, C, H, W) where the model is."""
        return self.network.example().to(next(self.model.parameters()).device)

    @property
    def top1(self) -> float:
        """Of the classifier as it is, percent."""
        return _percent(self.correct)

    def groups(self) -> list[Group]:
        """The layers in scope that can be narrowed."""
        return eligible(self.request.groups, self.request.selection)

    def layers(self) -> list[Group]:
        """Those that are pruned: all but the ones of which the lowest ratio leaves nothing."""
        lowest = min(ratio for ratio in self.asked.ratios if ratio > 0)
        found = [group for group in self.groups() if count_to_keep(group.width, lowest)]
        if not found:
            raise Refusal(f"--ratios {lowest:g}: the lowest leaves no channel in any layer")
        return found

    def curves(self) -> Iterator[Curve]:
        """One for each of `layers`, as it is measured; the model is not changed."""
        costs = LayerCosts(self.model, self.example)
        dense = count_params(self.model), costs.macs(self.model, {})
        for layer in self.layers():
            possible = [ratio for ratio in sorted(set(self.asked.ratios)) if count_to_keep(layer.width, ratio)]
            yield Curve(layer.name, layer.width, tuple(self._point(layer, ratio, costs, dense) for ratio in possible))

    def _point(self, layer: Group, ratio: float, costs: LayerCosts, dense: tuple[int, int]) -> Point:
        choice = self._choice(layer, ratio)
        batch = _normalised(self.images, self.network).inputs(0, CHECKED_IMAGES).to(self.example.device)
        small = prune_by_choice(self.model, self.network.arch, self.request.groups, choice, batch=batch).model
        correct = _correct(small, self.images, self.network)
        # image by image: how hard an image is does not count as noise of the difference
        lost = 100 * (self.correct.double() - correct.double())
        return Point(
            ratio=ratio,
            kept=len(choice.keep[layer.name]),
            top1=_percent(correct),
            lost=float(lost.mean()),
            standard_error=float(lost.std() / len(lost) ** 0.5),
            params_saved=dense[0] - count_params(small),
            macs_saved=dense[1] - costs.macs(small, {}),
        )

    def _choice(self, layer: Group, ratio: float) -> Choice:
        # the request's own memory is shared, so that scores are found once for all layers and ratios
        selection = replace(self.request.selection, layers={layer.name: ratio})
        method = self.asked.method
        with suppress(NotNarrowed):
            choice = get_method(method).prune(self.model, replace(self.request, selection=selection))
            if layer.name in choice.keep:
                return choice
        raise Refusal(f"method {method!r} does not rank the channels of {layer.name} alone; choose another")


def open_subject(run: Path, asked: Asked, machine: Machine) -> Subject:
    """The classifier of a finished run directory, measured as it is; ValueError for what has no such curves."""
    options = asked.read_options()
    check_device(machine, "--device")
    stage = load_stage(run)
    if stage.kind != "train_classifier":
        raise Refusal(f"{run}: a run of kind {stage.kind!r} is no trained classifier; choose one of train_classifier")
    folder = stage.run(run.resolve().parents[1])
    network, dataset = Network.load(folder), dataset_of(stage)
    assert dataset is not None  # it was trained on one
    if network.masks is not None:
        raise Refusal(f"{run}: single weights were removed from this network, so that its channels cannot be pruned")
    data = open_classification(dataset, machine, run.resolve().parents[1])
    n_validation = len(data.val)
    images = data.val
    if n_validation > asked.n_images:  # all of them stay in their order, and in the batches of the run's own evaluation
        images = images.subset(balanced_indices(images.labels, asked.n_images))
    model, device = load_model(folder), device_of(machine)
    groups = dense_groups(network, model)
    model = model.to(device)
    # scope `all` refuses a group that cannot be narrowed, unless it is skipped
    fixed = tuple(group.name for group in groups if group.fixed)
    request = Request(
        groups,
        Selection(ratio=0.0, scope=asked.scope, skip=fixed),
        options,
        stage.seed,
        _calibration(asked.method, data, network),
        network.example().to(device),
    )
    correct = _correct(model, images, network)
    return Subject(stage.id, network, model, images, n_validation, request, asked, correct)


def _calibration(method: str, data: Splits, network: Network) -> Calibration | None:
    """The training images that a study's pruning looks at unless it is told otherwise; None if it looks at none."""
    if get_method(method).needs == "nothing":
        return None
    index = balanced_indices(data.train.labels, CalibrationData().images)
    return _normalised(data.train.subset(index), network).losses(CALIBRATION_BATCH_SIZE)


def _normalised(images: Images, network: Network) -> CalibrationImages:
    return CalibrationImages(images, network.mean, network.std)


def _correct(model: nn.Module, images: Images, network: Network) -> Tensor:
    return evaluate_classifier(model, images, mean=network.mean, std=network.std).correct


def _percent(correct: Tensor) -> float:
    return 100 * int(correct.sum()) / len(correct)
