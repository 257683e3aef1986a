"""What a study will cost, before anything is trained: the network and the training MACs of every stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from classify.data import DataInfo
from classify.models.blank import rebuild_blank, rebuild_hollow
from detect.budgets import Costs
from pruning.cost import TRAINING_FACTOR, count_macs, count_params, masked_costs
from pruning.cut import make_plan
from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.methods import Choice, Request, get_method
from pruning.plan import PruningPlan
from pruning.select import eligible
from pruning.select_weights import conv_weights
from pruning.targets import choose_for_target
from study.config.sections import Machine
from study.plan.detector_costs import DetectorCosts
from study.stages.cost_left import at_share
from study.stages.data import classification_info, dataset_of
from study.stages.given_weights import NOT_COUNTED, check_given
from study.stages.length import classifier_epochs, detector_iterations, pretraining_macs
from study.stages.network import Network, check_channels, dense_groups, made_network, own_network, starts_dense
from study.stages.settings import Cut, PruneDetector, TrainClassifier, TrainDetector
from study.stages.stage import Stage

if TYPE_CHECKING:  # they import Detectron2, and classification works without
    from detect.build import Config, Detector
    from detect.data import DetectionDataset


_KEPT = 4  # networks with what can be pruned of them


@dataclass(frozen=True)
class Estimate:
    """A stage's network and training.

    `params`, `macs`: of the classifier, or of the whole detector. `length`: epochs or iterations. `at_most`: the
    network is known only when a stage before has run; the numbers are those of the larger network it comes from, whose
    training with the same budget costs at least as much; or the training may end before its last iteration.
    `teacher_macs`: of `train_macs`, the forward passes of a teacher.
    """

    params: int
    macs: int
    train_macs: int
    length: str = ""
    at_most: bool = False
    teacher_macs: int = 0


def _may_end_early(stage: Stage) -> bool:
    return stage.kind == "train_detector" and stage.read(TrainDetector).train.patience is not None


class Estimator:
    """Estimates stages one by one; what parents and equal networks share is worked out once."""

    def __init__(self, runs: Path, machine: Machine):
        self.runs = runs
        self.machine = machine
        self._prunables: dict[tuple[object, ...], tuple[nn.Module, Sequence[Group]]] = {}
        self._networks: dict[str, Network | None] = {}
        self._classifiers: dict[tuple[str, int, int], tuple[int, int]] = {}
        self._detectors = DetectorCosts(runs)

    def estimate(self, stage: Stage) -> Estimate:
        """The estimate of one stage; ValueError for what cannot be pruned or built as asked."""
        network = self.network(stage)
        known = network or self._larger(stage)
        detects = stage.kind in ("train_detector", "prune_detector", "evaluate")
        find = self._detector if detects else self._classifier
        return replace(find(stage, known), at_most=network is None or _may_end_early(stage))

    def check(self, stage: Stage) -> None:
        """ValueError for what `estimate` cannot work out; not for a budget that depends on a network not known yet."""
        network = self.network(stage)
        if network is None and stage.settings.get("budget"):
            self._detectors.of(stage, self._larger(stage))
        else:
            self.estimate(stage)

    def build(self, stage: Stage) -> "tuple[Detector, Config, DetectionDataset]":
        """The detector of a training stage without trained weights, its Detectron2 config and its training data."""
        return self._detectors.build(stage, self.network(stage) or self._larger(stage))

    def arch(self, stage: Stage) -> list[object]:
        """Name and options of the network that a stage leaves behind, whatever was pruned of it."""
        plan = (self.network(stage) or self._larger(stage)).plan
        return [plan.arch, dict(plan.options)]

    def _larger(self, stage: Stage) -> Network:
        """The network that one of unknown shape comes from."""
        if starts_dense(stage):
            return self._dense(stage)
        return self.network(stage.parents[0]) or self._larger(stage.parents[0])

    def network(self, stage: Stage) -> Network | None:
        """The network that a stage leaves behind, from disk or worked out; None if only running it can tell."""
        # Ahead of any run a network's shape does not depend on the seed, and one answer serves all seeds. What a method
        # found in trained weights does, so from the first run on disk each seed has its own.
        on_disk = any(s.run(self.runs).done for s in stage.with_ancestors())
        key = stage.id if on_disk else stage.hash
        if key not in self._networks:
            self._networks[key] = self._find_network(stage)
        return self._networks[key]

    def _find_network(self, stage: Stage) -> Network | None:
        if stage.kind != "evaluate" and stage.run(self.runs).done:
            return Network.load(stage.run(self.runs))
        before = self._dense(stage) if starts_dense(stage) else self.network(stage.parents[0])
        if "weights" in stage.settings:
            check_given(self._dense(stage), stage)
        if before is None or stage.kind not in ("prune", "prune_detector"):
            return before  # a training leaves the shape as it was, known or not
        return self._pruned(stage, before)

    def _dense(self, stage: Stage) -> Network:
        """The unpruned network, without its data's mean and deviation, which cost nothing."""
        own = own_network(stage)
        if own.made_for is not None:
            return made_network(own)
        info = self._data(stage)
        channels, size = info.shape[0], info.shape[-1]
        check_channels(own, channels)
        plan = PruningPlan(own.arch, own.arch_options)
        return Network(plan, info.num_classes, size, mean=(0.0,) * channels, std=(1.0,) * channels)

    def _data(self, stage: Stage) -> DataInfo:
        return classification_info(stage.settings["dataset"], self.machine, self.runs)

    def _pruned(self, stage: Stage, before: Network) -> Network | None:
        """The shape that a selection asks for: which channels stay does not matter for its cost."""
        settings = stage.read(Cut)
        # Single weights: how many go of each layer is only known of trained ones. Published shapes are known in full.
        # Of channels the counts follow from the selection where the method shares out by layer and asks no data; then
        # any choice of channels costs the same, and that of untrained weights will do.
        selection, method = settings.selection, get_method(settings.method)
        if settings.structural is None:
            options = settings.method_options()
            if stage.kind == "prune" and method.unstructured(options):
                # the channels of the network need not be known; names that match no layer are refused
                anything = selection if selection.cost_target is None else selection.at(0.0)
                conv_weights(self._blank(before), anything, linear=method.linear(options))
                return None
        model, groups = self._prunable(before, stage if stage.kind == "prune_detector" else None)
        if settings.structural is not None:
            return self._smaller(before, groups, choose_for_target(settings.structural, model, groups))
        eligible(groups, selection)  # names that match no layer are refused
        if not method.fixes_widths(selection):
            return None
        request = Request(groups, selection, settings.method_options(), stage.seed, example=before.example())
        request, _ = at_share(model, settings.method, request, before)
        return self._smaller(before, groups, method.sketch(model, request))

    def _prunable(self, network: Network, stage: Stage | None = None) -> tuple[nn.Module, Sequence[Group]]:
        """The network without its weights, and what can be pruned of it, inside a detector by `stage`."""
        # Finding it takes much of a dry run, and stages of several routes ask for a few networks in turn. More would
        # fill the memory where they are not ours, and so come with weights.
        # by method too: what one may prune inside a detector is refused to another
        of = [] if stage is None else [stage.settings.get(key) for key in ("scope", "method", "options")]
        inside = [] if stage is None else [stage.parents[0].settings["model"], *of]
        key = (*_shape_key(network), str(inside))
        if key not in self._prunables:
            model = self._blank(network)
            found = (model, dense_groups(network, model)) if stage is None else _inside(stage, network, model)
            for oldest in list(self._prunables)[: 1 - _KEPT]:
                del self._prunables[oldest]
            self._prunables[key] = found
        return self._prunables[key]

    def _blank(self, network: Network) -> nn.Module:
        return rebuild_blank(network.backbone().plan, network.num_classes)

    def _smaller(self, before: Network, groups: Sequence[Group], choice: Choice) -> Network:
        return before.then(make_plan(before.arch, groups, choice), {})

    def _classifier(self, stage: Stage, network: Network) -> Estimate:
        params, macs = self._cost(network)
        if stage.settings.get("between_layers"):
            return Estimate(params, macs, *self._between_layers(stage))
        if stage.kind in ("prune", "take_weights"):
            return Estimate(params, macs, 0, NOT_COUNTED if stage.kind == "take_weights" else "")
        dense_macs = self._cost(network.dense())[1]
        epochs = classifier_epochs(stage, dense_macs=dense_macs, pruned_macs=macs)
        settings, n_train = stage.read(TrainClassifier), self._data(stage).n_train
        taught = 0 if settings.distill is None else dense_macs * epochs * n_train
        train_macs = TRAINING_FACTOR * macs * (epochs + settings.counted_epochs) * n_train + taught
        return Estimate(params, macs, train_macs, f"{epochs} epochs", teacher_macs=taught)

    def _between_layers(self, stage: Stage) -> tuple[int, str]:
        """Training MACs and length of what a pruning trains after each group that it narrows."""
        before, epochs = self._larger(stage), stage.settings["between_layers"]["epochs"]
        plan = (self.network(stage) or before).plan
        kept_before = {**plan.widths, **before.plan.kept_counts()}
        rounds = sum(kept < kept_before[name] for name, kept in plan.kept_counts().items())
        seen = rounds * epochs * self._data(stage.parents[0]).n_train
        return TRAINING_FACTOR * self._cost(before)[1] * seen, f"{rounds} x {epochs} epochs"

    def _cost(self, network: Network) -> tuple[int, int]:
        """Params and multiply-adds of a classifier, as `Network.costs` counts them."""
        key = _shape_key(network)
        if network.masks is None and key in self._classifiers:
            return self._classifiers[key]
        model, example = self._blank(network), network.example()
        if network.masks is not None:
            return masked_costs(model, network.masks, example)
        self._classifiers[key] = (count_params(model), count_macs(model, example))
        return self._classifiers[key]

    def iterations(self, stage: Stage) -> int:
        """How long a detector trains; stages that ran cost what their results say."""
        network = self.network(stage) or self._larger(stage)
        # functions, since a detector is built and traced for each of these numbers, and most rules need none
        return detector_iterations(
            stage,
            Costs(
                macs=lambda: self._per_image(stage, network) + self._teacher(stage, network),
                dense_macs=lambda: self._per_image(stage, network.dense()),
                before=lambda: sum(self._spent(before) for before in stage.with_ancestors()[:-1]),
                dense_classification=lambda: self._dense_classification(stage, network),
                spare=lambda: self._spare(stage, network),
                teacher=lambda: self._others_teacher(stage, network),
            ),
        )

    def _spent(self, stage: Stage) -> int:
        run = stage.run(self.runs)
        return run.read_result()["train_macs"] if run.done else self.estimate(stage).train_macs

    def _dense_classification(self, stage: Stage, network: Network) -> int:
        """Training MACs of the unpruned classifier that a study's budgets follow from."""
        budget = stage.read(TrainDetector).budget
        assert budget is not None  # it asks for this
        dataset = dataset_of(stage)
        if dataset is None:
            raise Refusal(
                f"detector.budget: {budget.rule} counts all stages, and what it cost to train the given weights"
                " is not known; choose another budget"
            )
        n_train = classification_info(dataset, self.machine, self.runs).n_train
        return TRAINING_FACTOR * self._cost(network.dense())[1] * budget.classifier_epochs * n_train

    def _spare(self, stage: Stage, network: Network) -> int:
        """Training MACs by which the classifier before is cheaper than the one that the budget allows for."""
        dataset = dataset_of(stage)
        assert dataset is not None  # the classifier before was trained on it
        dense, pruned = self._cost(network.dense())[1], self._cost(network)[1]
        images = classification_info(dataset, self.machine, self.runs).n_train
        allowed = pretraining_macs(stage, dense_macs=dense, pruned_macs=pruned, images=images)
        return allowed - self._spent(stage.parents[0])

    def _per_image(self, stage: Stage, network: Network) -> int:
        """Training MACs of one image in the detector around `network`."""
        return self._detectors.of(stage, network)[2]

    def _teacher(self, stage: Stage, network: Network) -> int:
        """MACs of one image that the teacher of a detector looks at; 0 without."""
        return self._detectors.teacher(stage, network, stage.read(TrainDetector).distill)

    def _others_teacher(self, stage: Stage, network: Network) -> int:
        """As `_teacher`, of the route that this one spends as much as."""
        pretraining = stage.read(TrainDetector).pretraining
        return 0 if pretraining is None else self._detectors.teacher(stage, network, pretraining.distill)

    def _detector(self, stage: Stage, network: Network) -> Estimate:
        # a pruning and an evaluation have the detector of the training before them
        trained = next(s for s in reversed(stage.with_ancestors()) if s.kind == "train_detector")
        params, macs, per_image = self._detectors.of(trained, network)
        if stage.kind != "train_detector":
            return Estimate(params, macs, 0)
        iterations = self.iterations(stage)
        images = iterations * stage.read(TrainDetector).train.batch_size
        taught = self._teacher(stage, network) * images
        return Estimate(params, macs, per_image * images + taught, f"{iterations} iterations", teacher_macs=taught)


def _shape_key(network: Network) -> tuple[str, int, int]:
    """What the shapes of all layers follow from, masks aside."""
    return network.plan.to_json(), network.num_classes, network.image_size


def _inside(stage: Stage, network: Network, classifier: nn.Module) -> tuple[nn.Module, Sequence[Group]]:
    """What a stage that prunes inside a detector prunes, and its groups; `classifier` is that detector's."""
    from detect.pyramid import join  # Detectron2, which classification works without
    from study.stages.detector import build
    from study.stages.prune_detector import prunable_groups

    hollow = rebuild_hollow(network.backbone().plan, network.num_classes)
    if stage.read(PruneDetector).scope == "backbone":
        return classifier, prunable_groups(stage, network, hollow, None)
    # the FPN does not ask for the number of classes
    detector, _ = build(stage.parents[0], network, hollow, 1, device="cpu", blank=True)
    return join(detector.backbone), prunable_groups(stage, network, hollow, detector.backbone)
