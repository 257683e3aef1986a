"""Stages from the sections of a config: what each step of a pipeline is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from classify.regimes import BASE, BY_STEP, FINE_TUNE, RETRAINING, get_regime
from detect.budgets import BUDGETS
from pruning.errors import Refusal
from pruning.methods import get_method
from study.config.detector import Detector, check_pyramid
from study.config.schema import Guide
from study.plan import order
from study.plan.order import WITH_WEIGHTS, expect, keeps_pruned_weights
from study.plan.retraining import (
    Kept,
    between_layers,
    detector_before,
    detector_retraining,
    rates_of,
    remembering,
    where_rewound,
)
from study.plan.sections import GivenSections, PruningSettings, Sections, pruning_settings
from study.stages.contents import Contents
from study.stages.given_weights import given_settings, made_for, normalization
from study.stages.network import dense_training, starts_dense
from study.stages.settings import TrainClassifier, TrainDetector, is_structural
from study.stages.stage import Stage
from training.options import Section, changed


@dataclass
class StageBuilder:
    """Makes stages of one seed from the sections of a config; asking twice for a stage gives the same object.

    A section that no asked stage needs may be absent. `validating`: the stages' results are of the validation split,
    and the test split is not looked at. `alone`: one stage is run and no other, a teacher neither. `kept`: the epochs
    that dense trainings keep for other points of the study.
    """

    config: Sections
    seed: int
    known: dict[tuple[str, int], Stage] = field(default_factory=dict)
    contents: Contents = field(default_factory=Contents)
    validating: bool = False
    alone: bool = False
    kept: Kept = field(default_factory=dict)

    def stage(self, kind: str, settings: Mapping[str, object], *parents: Stage) -> Stage:
        # of a detector `evaluate` chooses the split
        if self.validating and kind in ("train_classifier", "prune"):
            settings = {**settings, "untested": True}
        return self._known(Stage(kind, settings, parents, self.seed))

    def _known(self, stage: Stage) -> Stage:
        return self.known.setdefault((stage.hash, self.seed), stage)

    def classify(self, parent: Stage | None, changes: dict[str, object], *, effect: bool = False) -> Stage:
        expect(parent, None)
        if self.config.classifier.dataset is None:
            return self._take_weights(changes)
        # The dense network that is pruned may be trained with the method's effect (sparse scales, zeroed filters); the
        # one that stands for "unpruned" never is. Without an effect the two are one stage.
        method = get_method(self.config.prune.method)
        settings = self._classifier(BASE, changes)
        if self.config.classifier.rewind:
            settings["snapshot_at"] = self.config.classifier.rewind
        weights = self.config.classifier.weights
        if effect := effect and method.training_effect is not None:
            settings["effect"] = self.effect({})
        if weights is not None:  # they have not had the effect: the training goes on from them
            file = self.contents.weights(weights, self.config.classifier.arch)
            settings["weights"] = given_settings(self.config.classifier, file, effect=effect)
        dense = self.stage("train_classifier", settings)
        if not effect and method.training_effect is not None:
            return dense  # nothing is pruned of it
        # `kept` names a training by the hash that it has without snapshots, so that one is made first
        return self._known(remembering(dense, self.config.classifier, self.kept))

    def _take_weights(self, changes: dict[str, object]) -> Stage:
        """The network of weights that no classification data comes with."""
        if changes:
            raise Refusal(f"{next(iter(changes))}: nothing is trained without classifier.dataset")
        classifier = self.config.classifier
        assert classifier.weights is not None  # a classifier without a data set has them
        weights = self.contents.weights(classifier.weights, classifier.arch)
        return self.stage("take_weights", {**self._network(), "weights": weights})

    def classify_for_pruning(self, parent: Stage | None, changes: dict[str, object]) -> Stage:
        return self.classify(parent, changes, effect=True)

    def shape(self, parent: Stage | None, changes: dict[str, object]) -> Stage:
        """The pruned architecture, from as little as the method needs."""
        expect(parent, None)
        prune = self.config.prune.changed(changes)
        if self.config.guide is not None and get_method(prune.method).follows_patterns:
            return self._guided(self.config.guide, changes)
        # widths that follow from the selection alone are those of untrained weights as well: nothing is trained
        if get_method(prune.method).fixes_widths(prune.selection()) or is_structural(prune.target):
            return self.prune(None, changes)
        order.check_prepared(self.effect, changes)
        return self.prune(self.classify_for_pruning(None, {}), changes)

    def _guided(self, guide: Guide, changes: dict[str, object]) -> Stage:
        """A design after the networks that `guide` prunes: nothing is trained for it but those."""
        # `known` is shared, so that a guide that is also a route's own classifier is trained once for both
        source = GivenSections(self.config.guided_classifier(), prune=guide.prune, machine=self.config.machine)
        builders = [replace(self, config=source, seed=seed) for seed in guide.seeds]
        pruned = [builder.prune(builder.classify_for_pruning(None, {}), {}) for builder in builders]
        # left out where it is the default, which must not change a hash
        seeds = () if guide.seeds == (0,) else guide.seeds
        return self.stage("prune", {**self._pruning(changes), **self._network(), "guide_seeds": seeds}, *pruned)

    def prune(self, parent: Stage | None, changes: dict[str, object]) -> Stage:
        if parent is not None:
            expect(parent, "train_classifier", "take_weights")
            order.check_design(self.config)
        # without a parent the stage makes the network itself, and so must say which
        pruning = self._pruning(changes)
        order.check_pruned(pruning["method"], parent)
        between = pruning.pop("between_layers", None)
        if between is not None and parent is not None:  # of a shape alone nothing is trained
            pruning["between_layers"] = between_layers(self.config.classifier.training("fine_tune"), between)
        settings = {**pruning, **({} if parent else self._network())}
        return self.stage("prune", settings, *([parent] if parent else []))

    def prune_at_init(self, parent: Stage | None, changes: dict[str, object]) -> Stage:
        """The network pruned as it is before its training, which then goes on from what is left (`from_init`)."""
        expect(parent, None)
        order.check_design(self.config)
        order.check_untrained(self.config.prune.changed(changes))
        return self.prune(None, changes)

    def train_pruned(self, regime: str, parent: Stage | None, changes: dict[str, object]) -> Stage:
        stage = expect(parent, "prune")
        regime = self.config.classifier.retrain if regime == FINE_TUNE else regime
        wanted = get_regime(regime)
        order.check_start(wanted, stage)
        # weights may be given here or where the pruned network came from, in a study or in a run of its own
        given = self.config.classifier.weights or any("weights" in s.settings for s in stage.with_ancestors())
        if wanted.init in ("original", "rewound") and given:
            raise Refusal("weights that are given have no beginning to go back to; leave out classifier.weights")
        rates = rates_of(dense_training(stage)) if wanted.at_dense_rates else {}
        settings = self._classifier(regime, {**rates, **changes})
        if wanted.last_part:
            settings["rewound_to"] = where_rewound(stage, settings)
        if wanted.plus_fine_tuning:
            settings["fine_tune_epochs"] = self.config.classifier.training("fine_tune").epochs
        distill = self.config.classifier.distill
        if distill is None or regime not in RETRAINING:
            return self.stage("train_classifier", settings, stage)
        settings["distill"] = distill.model_dump(mode="json")
        return self.stage("train_classifier", settings, stage, self._teacher())

    def detect(self, parent: Stage | None, changes: dict[str, object], phase: str = "train", *kinds: str) -> Stage:
        stage, detector = expect(parent, *(kinds or WITH_WEIGHTS)), self._detector()
        order.check_colour(stage)
        scratch = phase == "from_scratch"
        if not scratch and stage.kind == "prune" and starts_dense(stage):
            raise Refusal("comes after a network that was trained and pruned, here its shape alone is known")
        model = detector.scratch_model() if scratch else detector.model
        training = detector.training("train" if scratch else phase)  # type: ignore[arg-type]
        retrained = phase == "fine_tune" and detector.retrain != FINE_TUNE
        # what the step itself changes is laid over these below, and so wins
        rates = rates_of(detector_before(stage)) if retrained else {}
        settings: dict[str, object] = {
            "data": self.contents.detection(detector.dataset),
            "model": model.as_json(),
            "train": {**training.model_dump(mode="json"), **_checked({**rates, **changes}, training)},
            "init": "random" if scratch else "inherited",
        }
        if retrained:
            settings |= detector_retraining(detector.retrain, stage, training.iterations)
        if not scratch and stage.kind == "prune":  # weights were removed and nothing was trained since
            settings["recalibrate"] = True
        # The rule is recorded and not the iterations it comes to, which are known when the stages before have run. The
        # part of a training before pruning is fixed, and what is behind it gets the rest.
        if BUDGETS[detector.budget] is not None and phase != "before_pruning":
            whole = {"rule": detector.budget, "iterations": detector.train.iterations}
            settings["budget"] = {**whole, "classifier_epochs": self.config.classifier.epochs}
        if phase == "before_pruning" and (effect := self.effect({})):
            order.check_acted_on(training, self.config.prune.method)
            settings["effect"] = {**effect, **detector.scope_settings()}
        if detector.distill is None or scratch or not keeps_pruned_weights(stage):
            return self.stage("train_detector", settings, stage)
        settings["distill"] = detector.distill.model_dump(mode="json")
        return self.stage("train_detector", settings, stage, self.detect(self._teacher(), {}))

    def _teacher(self) -> Stage:
        """The classifier of the route "unpruned", which no pruning method has acted on."""
        if self.alone:
            raise Refusal("distill: a training alone has no teacher; run it in a study, or set distill: null")
        return self.classify(None, {})

    def detect_fair(self, parent: Stage | None, changes: dict[str, object]) -> Stage:
        """A detector that also spends what its classifier cost less than one that is pruned and fine-tuned."""
        stage = self.detect(parent, changes, "train", "train_classifier")
        # asked for its epochs alone: it is no parent, so this route does not train it
        dense = self.classify_for_pruning(None, {}).read(TrainClassifier)
        epochs = dense.train.epochs + dense.counted_epochs
        fine_tuning = self.config.classifier.training("fine_tune").epochs
        pretraining: dict[str, object] = {"epochs": epochs, "fine_tune_epochs": fine_tuning}
        if self.config.classifier.distill is not None:
            pretraining["distilled"] = True
        if (distill := self._detector().distill) is not None:
            pretraining["distill"] = distill.model_dump(mode="json")
        return self.stage("train_detector", {**stage.settings, "pretraining": pretraining}, *stage.parents)

    def prune_detector(self, parent: Stage | None, changes: dict[str, object]) -> Stage:
        stage = expect(parent, "train_detector")
        pruning = self._pruning(changes, "batches")
        order.check_pruned(pruning["method"], stage)
        if is_structural(pruning["target"]):
            raise Refusal(f"target {pruning['target']!r} is a shape of a classifier; prune it before the transfer")
        if "between_layers" in pruning:
            raise Refusal("prune.between_layers: a detector is not trained after each layer; set it to null")
        scope = self._detector().scope_settings()
        if "scope" in scope:
            norm = str(stage.read(TrainDetector).model.detectron2().get("MODEL.FPN.NORM", ""))
            check_pyramid(pruning["method"], norm)
        return self.stage("prune_detector", {**pruning, **scope}, stage)

    def evaluate(self, parent: Stage) -> Stage:
        split, scenes = ("val", 0) if self.validating else ("test", self.config.evaluate.scenes)
        data = self.contents.detection(self._detector().dataset)
        return self.stage("evaluate", {"data": data, "scenes": scenes, "split": split}, parent)

    def _network(self) -> dict[str, object]:
        """The architecture, and the data whose classes and normalisation it has."""
        classifier, contents = self.config.classifier, self.contents
        if classifier.weights is not None:
            contents.weights(classifier.weights, classifier.arch)  # says what is missing
        if classifier.dataset is None:
            asked = classifier.model_dump(mode="json", include={"arch", "options", "weights", "normalization"})
            given = contents.once(["made for", asked], lambda: made_for(classifier))
            return {"arch": classifier.arch, "arch_options": classifier.options, **given}
        dataset = contents.classification(classifier.dataset, self.config.machine.data_root)
        found = normalization(classifier)
        network = {"arch": classifier.arch, "arch_options": classifier.options, "dataset": dataset}
        return {**network, **({} if found is None else {"normalization": found})}

    def _classifier(self, regime: str, changes: dict[str, object]) -> dict[str, object]:
        # with the defaults: `Stage.identity` leaves out what equals them, so that the hash is of what differs
        training = self.config.classifier.training(get_regime(regime).section)
        return {
            **self._network(),
            "regime": regime,
            "train": {**training.model_dump(mode="json"), **_checked(changes, training)},
            "cap": self.config.classifier.scratch_b_cap,
        }

    def effect(self, changes: dict[str, object]) -> dict[str, object]:
        """What pruning asks of the training before it; trainings that differ in nothing that it reads are one."""
        pruning = self._pruning(changes)
        if (method := get_method(pruning["method"])).training_effect is None:
            return {}
        reads = {key: pruning["selection"][key] for key in method.effect_reads}
        return {"method": pruning["method"], "options": pruning["options"], **({"selection": reads} if reads else {})}

    def _pruning(self, changes: dict[str, object], unit: Literal["images", "batches"] = "images") -> PruningSettings:
        """The settings of a pruning; `unit`: of what the method looks at, if it does."""
        return pruning_settings(self.config, changes, unit, self.contents)

    def _detector(self) -> Detector:
        if self.config.detector is None:
            raise Refusal("there is no `detector` section in this config")
        return self.config.detector


Step = Callable[[StageBuilder, Stage | None, dict[str, object]], Stage]


def _checked(changes: Mapping[str, object], section: Section) -> Mapping[str, object]:
    """Changes of a step, validated as the section they change."""
    if changes:
        changed(section, dict(changes), "changes")
    return changes


def _training_by(regime: str) -> Step:
    return lambda builder, parent, changes: builder.train_pruned(regime, parent, changes)


# what each step of a chain adds; the value of a step in a user's chain changes that step's settings
STEPS: dict[str, Step] = {
    "classify": StageBuilder.classify,
    "classify_for_pruning": StageBuilder.classify_for_pruning,
    "shape": StageBuilder.shape,
    "prune": StageBuilder.prune,
    "prune_at_init": StageBuilder.prune_at_init,
    **{regime: _training_by(regime) for regime in BY_STEP if regime != BASE},
    "detect": StageBuilder.detect,
    "detect_fair": StageBuilder.detect_fair,
    "detect_before_pruning": lambda b, parent, changes: b.detect(parent, changes, "before_pruning"),
    "prune_detector": StageBuilder.prune_detector,
    "fine_tune_detector": lambda b, parent, changes: b.detect(parent, changes, "fine_tune", "prune_detector"),
    "detect_from_scratch": lambda b, parent, changes: b.detect(parent, changes, "from_scratch", "prune"),
}
