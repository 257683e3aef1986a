"""Stages from the sections of a config: what each step of a pipeline is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from classify.regimes import BASE, REGIMES, get_regime
from detect.budgets import BUDGETS
from pruning.errors import Refusal
from pruning.methods import get_method
from study.config.detector import Detector, check_pyramid
from study.plan.order import WITH_WEIGHTS, check_colour, check_pruned, expect, keeps_pruned_weights
from study.plan.sections import GuidingSections, PruningSettings, Sections
from study.stages.contents import Contents
from study.stages.given_weights import given_settings, made_for, normalization
from study.stages.network import starts_dense
from study.stages.settings import TrainClassifier, TrainDetector, is_structural
from study.stages.stage import Stage
from training.options import Section, changed, file_options, validated


@dataclass
class StageBuilder:
    """Makes stages of one seed from the sections of a config; asking twice for a stage gives the same object.

    A section that no asked stage needs may be absent. `validating`: the stages' results are of the validation split,
    and the test split is not looked at. `alone`: one stage is run and no other, a teacher neither.
    """

    config: Sections
    seed: int
    known: dict[tuple[str, int], Stage] = field(default_factory=dict)
    contents: Contents = field(default_factory=Contents)
    validating: bool = False
    alone: bool = False

    def stage(self, kind: str, settings: Mapping[str, object], *parents: Stage) -> Stage:
        if self.validating and kind in ("train_classifier", "prune"):
            settings = {**settings, "untested": True}
        stage = Stage(kind, settings, parents, self.seed)
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
        effect = effect and method.training_effect is not None
        if effect:
            settings["effect"] = self._effect()
        if weights is not None:  # they have not had the effect: the training goes on from them
            file = self.contents.weights(weights, self.config.classifier.arch)
            settings["weights"] = given_settings(self.config.classifier, file, effect=effect)
        return self.stage("train_classifier", settings)

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
        prune = self.config.prune
        if self.config.guide is not None and get_method(prune.method).follows_patterns:
            return self.guided(None, changes)
        # widths that follow from the selection alone are those of untrained weights as well: nothing is trained
        predefined = get_method(prune.method).predefined and prune.selection().level == "layer"
        if predefined or is_structural(prune.target):
            return self.prune(None, changes)
        return self.prune(self.classify_for_pruning(None, {}), changes)

    def guided(self, parent: Stage | None, changes: dict[str, object]) -> Stage:
        """A design after the networks that `guide` prunes: nothing is trained for it but those."""
        expect(parent, None)
        assert self.config.guide is not None
        # `known` is shared, so that a guide that is also a route's own classifier is trained once for both
        source = GuidingSections(self.config.guided_classifier(), self.config.guide.prune, self.config.machine)
        guides = [replace(self, config=source, seed=seed) for seed in self.config.guide.seeds]
        pruned = [guide.prune(guide.classify_for_pruning(None, {}), {}) for guide in guides]
        return self.stage("prune", {**self._pruning(changes), **self._network()}, *pruned)

    def prune(self, parent: Stage | None, changes: dict[str, object]) -> Stage:
        if parent is not None:
            expect(parent, "train_classifier", "take_weights")
            self._check_design()
        # without a parent the stage makes the network itself, and so must say which
        pruning = self._pruning(changes)
        check_pruned(pruning["method"], parent)
        settings = {**pruning, **({} if parent else self._network())}
        return self.stage("prune", settings, *([parent] if parent else []))

    def train_pruned(self, regime: str, parent: Stage | None, changes: dict[str, object]) -> Stage:
        stage = expect(parent, "prune")
        wanted = get_regime(regime)
        if wanted.init != "random" and starts_dense(stage):
            raise Refusal("comes after a network that was trained and pruned, here its shape alone is known")
        # weights may be given here or where the pruned network came from, in a study or in a run of its own
        given = self.config.classifier.weights or any("weights" in s.settings for s in stage.with_ancestors())
        if wanted.init == "original" and given:
            raise Refusal("weights that are given have no beginning to go back to; leave out classifier.weights")
        settings = self._classifier(regime, changes)
        if wanted.plus_fine_tuning:
            settings["fine_tune_epochs"] = self.config.classifier.training("fine_tune").epochs
        distill = self.config.classifier.distill
        if distill is None or wanted.init != "inherited":
            return self.stage("train_classifier", settings, stage)
        settings["distill"] = distill.model_dump(mode="json")
        return self.stage("train_classifier", settings, stage, self._teacher())

    def detect(self, parent: Stage | None, changes: dict[str, object], phase: str = "train", *kinds: str) -> Stage:
        stage, detector = expect(parent, *(kinds or WITH_WEIGHTS)), self._detector()
        check_colour(stage)
        scratch = phase == "from_scratch"
        if not scratch and stage.kind == "prune" and starts_dense(stage):
            raise Refusal("comes after a network that was trained and pruned, here its shape alone is known")
        model = detector.scratch_model() if scratch else detector.model
        training = detector.training("train" if scratch else phase)  # type: ignore[arg-type]
        settings: dict[str, object] = {
            "data": self._detection(),
            "model": model.as_json(),
            "train": {**training.model_dump(mode="json"), **_checked(changes, training)},
            "init": "random" if scratch else "inherited",
        }
        if not scratch and stage.kind == "prune":  # weights were removed and nothing was trained since
            settings["recalibrate"] = True
        # The rule is recorded and not the iterations it comes to, which are known when the stages before have run. The
        # part of a training before pruning is fixed, and what is behind it gets the rest.
        if BUDGETS[detector.budget] is not None and phase != "before_pruning":
            whole = {"rule": detector.budget, "iterations": detector.train.iterations}
            settings["budget"] = {**whole, "classifier_epochs": self.config.classifier.epochs}
        method = get_method(self.config.prune.method)
        if phase == "before_pruning" and method.training_effect is not None:
            if not training.iterations:
                raise Refusal(
                    f"detector.prune_at: 0 leaves no training for {self.config.prune.method} to act on before it prunes"
                )
            if training.keep == "best" or training.patience is not None:
                raise Refusal(
                    f"detector.train: {self.config.prune.method} acts on the training to its last step, so keep: best"
                    " and patience do not go with it in transfer_then_prune"
                )
            settings["effect"] = {**self._effect(), **detector.scope_settings()}
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
        check_pruned(pruning["method"], stage)
        if is_structural(pruning["target"]):
            raise Refusal(f"target {pruning['target']!r} is a shape of a classifier; prune it before the transfer")
        scope = self._detector().scope_settings()
        if "scope" in scope:
            norm = str(stage.read(TrainDetector).model.detectron2().get("MODEL.FPN.NORM", ""))
            check_pyramid(pruning["method"], norm)
        return self.stage("prune_detector", {**pruning, **scope}, stage)

    def evaluate(self, parent: Stage) -> Stage:
        split, scenes = ("val", 0) if self.validating else ("test", self.config.evaluate.scenes)
        return self.stage("evaluate", {"data": self._detection(), "scenes": scenes, "split": split}, parent)

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

    def _check_design(self) -> None:
        """ValueError where trained weights would be cut by the design of a guide: that is for networks from scratch."""
        prune = self.config.prune
        follows = self.config.guide is not None and get_method(prune.method).follows_patterns
        if follows and not prune.options.get("patterns"):
            raise Refusal(
                "a design after the networks of `guide` is for networks from scratch (scratch_e, scratch_b,"
                " scratch_b_fair); to cut trained weights by a design, name its file in prune.options.patterns"
            )

    def _effect(self) -> dict[str, object]:
        """What pruning asks of the training before it; trainings that differ in nothing that it reads are one."""
        pruning = self._pruning({})
        reads = get_method(pruning["method"]).effect_reads
        selection = {"selection": {key: pruning["selection"][key] for key in reads}} if reads else {}
        return {"method": pruning["method"], "options": pruning["options"], **selection}

    def _pruning(self, changes: dict[str, object], unit: Literal["images", "batches"] = "images") -> PruningSettings:
        """The settings of a pruning; `unit`: of what the method looks at, if it does."""
        # what the file said and what a step changes, validated as one: a changed method must take the options that stay
        data = {**self.config.prune.model_dump(mode="json", exclude_unset=True), **changes}
        complete = validated(type(self.config.prune), data, "prune")
        selection = complete.selection()
        looks = get_method(complete.method).needs != "nothing"
        # A file counts by its content: its name leaves the options, and its sum stands for it in the stage's hash.
        given: dict[str, list[dict[str, object]]] = {}
        for name in file_options(complete.method):
            files = complete.options.get(name)
            if files and isinstance(files, list | tuple):
                given[name] = [self.contents.file(Path(file), f"prune.options.{name}") for file in files]
        options = {name: value for name, value in complete.options.items() if name not in given}
        found: PruningSettings = {"method": complete.method, "options": options}
        if given:
            found["files"] = given
        found["target"] = complete.target
        found["selection"] = {**selection.__dict__, "ratio": list(selection.stage_ratios())}
        if looks:
            found["calibration"] = {unit: getattr(complete.calibration, unit)}
        if complete.allow_partial:
            found["allow_partial"] = True
        return found

    def _detector(self) -> Detector:
        if self.config.detector is None:
            raise Refusal("there is no `detector` section in this config")
        return self.config.detector

    def _detection(self) -> dict[str, object]:
        return self.contents.detection(self._detector().dataset)


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
    **{regime: _training_by(regime) for regime in REGIMES if regime != BASE},
    "detect": StageBuilder.detect,
    "detect_fair": StageBuilder.detect_fair,
    "detect_before_pruning": lambda b, parent, changes: b.detect(parent, changes, "before_pruning"),
    "prune_detector": StageBuilder.prune_detector,
    "fine_tune_detector": lambda b, parent, changes: b.detect(parent, changes, "fine_tune", "prune_detector"),
    "detect_from_scratch": lambda b, parent, changes: b.detect(parent, changes, "from_scratch", "prune"),
}
