"""What a study will cost, before anything is trained: the network and the training MACs of every stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from classify.models import stages_of
from pruning.cost import count_params
from pruning.groups import Group
from pruning.methods import Choice, get_method
from pruning.prune import make_plan
from pruning.select import counts, eligible
from pruning.targets import choose_for_target, get_target
from study.classifier_stages import classifier_epochs
from study.data import open_classification, open_detection
from study.networks import Network, dense_groups, dense_network, is_structural, selection_of, starts_dense
from study.sections import Machine
from study.stages import Stage


@dataclass(frozen=True)
class Estimate:
    """A stage's network and training.

    `params`, `macs`: of the classifier, or of the whole detector. `length`: epochs or iterations. `at_most`: the
    network is known only when a stage before has run; the numbers are those of the larger network it comes from, whose
    training with the same budget costs at least as much.
    """

    params: int
    macs: int
    train_macs: int
    length: str = ""
    at_most: bool = False


class Budget:
    """Estimates stages one by one; what parents and equal networks share is worked out once."""

    def __init__(self, runs: Path, machine: Machine):
        self.runs = runs
        self.machine = machine
        self._networks: dict[str, Network | None] = {}
        self._costs: dict[tuple[str, str], tuple[int, int, int]] = {}

    def estimate(self, stage: Stage) -> Estimate:
        """The estimate of one stage; ValueError for what cannot be pruned or built as asked."""
        network = self.network(stage)
        known = network or self._larger(stage)
        find = self._classifier if stage.kind in ("train_classifier", "prune") else self._detector
        return replace(find(stage, known), at_most=network is None)

    def _larger(self, stage: Stage) -> Network:
        """The network that one of unknown shape comes from."""
        if starts_dense(stage):
            return self._dense(stage)
        return self.network(stage.parents[0]) or self._larger(stage.parents[0])

    def network(self, stage: Stage) -> Network | None:
        """The network that a stage leaves behind, from disk or worked out; None if only running it can tell."""
        if stage.hash not in self._networks:
            self._networks[stage.hash] = self._find_network(stage)
        return self._networks[stage.hash]

    def _find_network(self, stage: Stage) -> Network | None:
        if stage.kind != "evaluate" and stage.run(self.runs).done:
            return Network.load(stage.run(self.runs))
        before = self._dense(stage) if starts_dense(stage) else self.network(stage.parents[0])
        if before is None or stage.kind not in ("prune", "prune_detector"):
            return before
        return self._pruned(stage, before)

    def _dense(self, stage: Stage) -> Network:
        data = open_classification(stage.settings["dataset"], self.machine)
        return dense_network(stage.settings, data)

    def _pruned(self, stage: Stage, before: Network) -> Network | None:
        """The shape that a selection asks for: which channels stay does not matter for its cost."""
        selection = selection_of(stage.settings)
        model = before.build()
        if stage.kind == "prune":
            groups = dense_groups(before, model)
        else:
            from detect.prune import backbone_groups  # Detectron2, which classification works without

            strides = stage.parents[0].settings["model"]["strides"]
            groups = backbone_groups(model, before.example(), strides=strides, stages=stages_of(before.plan.arch))
        if is_structural(stage.settings["target"]):
            choice = choose_for_target(get_target(stage.settings["target"]), model, groups)
            return self._smaller(before, groups, choice)
        chosen = eligible(groups, selection)
        if not get_method(stage.settings["method"]).predefined or selection.level != "layer":
            return None
        keep = {name: tuple(range(n)) for name, n in counts(chosen, selection).items()}
        return self._smaller(before, groups, Choice(keep))

    def _smaller(self, before: Network, groups: Sequence[Group], choice: Choice) -> Network:
        plan = before.plan.then(make_plan(before.arch, groups, choice))
        return Network(plan, before.num_classes, before.image_size, before.mean, before.std)

    def _classifier(self, stage: Stage, network: Network) -> Estimate:
        key = ("classifier", network.plan.to_json())
        if key not in self._costs:
            costs = network.costs()
            self._costs[key] = (costs["params"], costs["macs"], 0)
        params, macs, _ = self._costs[key]
        if stage.kind == "prune":
            return Estimate(params, macs, 0)
        images = len(open_classification(stage.settings["dataset"], self.machine).train)
        epochs = classifier_epochs(stage, network)
        return Estimate(params, macs, 3 * macs * epochs * images, f"{epochs} epochs")

    def _detector(self, stage: Stage, network: Network) -> Estimate:
        from detect.cost import evaluation_macs, training_macs
        from detect.data import class_names, mean_image_size
        from study.detector_stages import build

        trained = next(s for s in reversed(stage.with_ancestors()) if s.kind == "train_detector")
        key = (str(trained.settings["model"]), network.plan.to_json())
        if key not in self._costs:
            dataset = open_detection(trained.settings["data"], "train", self.runs / "data")
            detector, cfg = build(trained, network, network.build(), len(class_names(dataset)), device="cpu")
            size = mean_image_size(dataset, cfg)
            macs = evaluation_macs(detector, cfg, image_size=size).total
            self._costs[key] = (count_params(detector), macs, training_macs(detector, cfg, image_size=size))
        params, macs, per_image = self._costs[key]
        if stage.kind != "train_detector":
            return Estimate(params, macs, 0)
        train = stage.settings["train"]
        images = train["iterations"] * train["batch_size"]
        return Estimate(params, macs, per_image * images, f"{train['iterations']} iterations")
