"""Every pruning of a study done once on networks without weights, so that what a method refuses is refused before any
training: chains that do not fit, options and layers that do not exist, shares that cannot be reached.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from classify.batch_norms import check_smallest_batch
from classify.models.blank import rebuild_blank, rebuild_hollow
from classify.regimes import get_regime
from pruning.achieved import achieved
from pruning.cut import make_plan
from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.methods import Choice, Effect, Request, get_method
from study.plan.estimate import Estimator
from study.stages.cost_left import at_share
from study.stages.effects import method_effect, trained_network
from study.stages.network import Network, starts_dense
from study.stages.prune import after_masks, write_pattern
from study.stages.settings import Cut, TrainClassifier, TrainDetector
from study.stages.stage import Stage
from training.compiled import check_compilable


class Rehearsal:
    """Networks such as the stages will leave: shapes are true, which channels stay is not."""

    def __init__(self, estimator: Estimator):
        self.estimator = estimator
        self._networks: dict[str, Network] = {}

    def network(self, stage: Stage) -> Network:
        """The network behind a stage; ValueError for what the stage would refuse."""
        # by hash, without the seed: shapes and refusals are the same for all seeds
        if stage.hash not in self._networks:
            self._networks[stage.hash] = self._find(stage)
        return self._networks[stage.hash]

    def _find(self, stage: Stage) -> Network:
        if stage.kind != "evaluate" and stage.run(self.estimator.runs).done:
            return Network.load(stage.run(self.estimator.runs))
        parents = [self.network(parent) for parent in stage.parents]
        before = self.estimator._dense(stage) if starts_dense(stage) else parents[0]
        if stage.kind == "train_classifier":
            return self._trained(stage, before)
        if stage.kind == "train_detector":
            return self._trained_in_detector(stage, before)
        if stage.kind not in ("prune", "prune_detector"):
            return before
        return self._pruned(stage, before, parents)

    def _trained(self, stage: Stage, network: Network) -> Network:
        settings, info = stage.read(TrainClassifier), self.estimator._data(stage)
        model, train = rebuild_blank(network.backbone().plan, network.num_classes), settings.train
        if train.batch_size > info.n_train:
            key = get_regime(settings.regime).section
            raise Refusal(
                f"classifier.{key}.batch_size={train.batch_size} is larger than the training set of {info.n_train}"
                " images"
            )
        check_smallest_batch(model, train, info.n_train, image=info.shape)
        if settings.effect is None:
            return network
        # an effect looks for what it acts on when it is made (scales that train, filters), and refuses what lacks it
        effect = method_effect(
            settings.effect, model, network, lambda: self.estimator._prunable(network)[1], stage.seed
        )
        self._check_compilable(effect)
        # refuses a training that is too short for what the effect is to do in it
        effect.plan_for(train.epochs * train.steps_per_epoch(info.n_train))
        return trained_network(network, [effect])

    def _trained_in_detector(self, stage: Stage, network: Network) -> Network:
        settings = stage.read(TrainDetector)
        if settings.effect is None:
            return network
        model, groups = _inside(stage, network, self.estimator._blank(network))
        effect = method_effect(settings.effect, model, network, groups, stage.seed)
        self._check_compilable(effect)
        effect.plan_for(self.estimator.iterations(stage))
        return trained_network(network, [effect])

    def _check_compilable(self, effect: Effect) -> None:
        if self.estimator.machine.compile:
            check_compilable([effect])

    def _pruned(self, stage: Stage, before: Network, parents: list[Network]) -> Network:
        settings = stage.read(Cut)
        # a published shape needs no trained weights: what `Estimator` worked out is the network itself
        if settings.structural is not None:
            return self.estimator.network(stage) or before
        options = after_masks(settings.method, settings.method_options(), before.masks)
        groups: Sequence[Group] = []
        if stage.kind == "prune" and get_method(settings.method).unstructured(options):
            model = rebuild_blank(before.backbone().plan, before.num_classes)
        else:
            model, groups = self.estimator._prunable(before, stage if stage.kind == "prune_detector" else None)
        # a method that goes on from masks refuses a network in which removed weights are not zero
        if before.masks is not None:
            before.masks.apply(model)
        # a guided design reads patterns from files, which its guides have not written yet: theirs are made as they
        # would
        with TemporaryDirectory() as folder:
            if starts_dense(stage) and parents:
                pattern = Path(folder) / "pattern.json"
                write_pattern(parents, pattern)
                options = replace(options, patterns=(str(pattern),))
            request = Request(groups, settings.selection, options, stage.seed, example=before.example(), blank=True)
            if settings.selection.cost_target is not None:
                model = _drawn(model, before)
            request, reached = at_share(model, settings.method, request, before)
            # where it must look at data or trained weights, any choice of the asked counts will do
            amount = get_method(settings.method).sets_amount(options)
            # what a training removes is only known behind it
            choice = Choice() if amount == "training" else get_method(settings.method).sketch(model, request)
        # a published shape says itself what goes, and may well be far from any ratio
        if settings.target is None and not settings.allow_partial:
            by_ratio = reached is None and amount == "selection"
            found = replace(achieved(model, request, choice, by_ratio=by_ratio), reached=reached)
            found.check(settings.method, request.selection.scope)
        return before.then(make_plan(before.arch, groups, choice), choice.masks)


def _drawn(model: nn.Module, network: Network) -> nn.Module:
    """A copy with random weights: among equal scores a search by target finds steps of whole layers."""
    drawn, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in drawn.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
    if network.masks is not None:
        network.masks.apply(drawn)
    return drawn


def _inside(stage: Stage, network: Network, classifier: nn.Module) -> tuple[nn.Module, Callable[[], Sequence[Group]]]:
    """What an effect acts on in the detector that a stage trains, and how its groups are found."""
    from detect.pyramid import join  # Detectron2, which classification works without
    from study.stages.detector import build, groups_inside

    settings = stage.read(TrainDetector)
    assert settings.effect is not None
    strides, scope = settings.model.strides, settings.effect.scope
    hollow = rebuild_hollow(network.backbone().plan, network.num_classes)
    if scope == "backbone":
        return classifier, lambda: groups_inside(strides, scope, network, hollow, None)
    # the FPN does not ask for the number of classes
    detector, _ = build(stage, network, hollow, 1, device="cpu", blank=True)
    return join(detector.backbone), lambda: groups_inside(strides, scope, network, hollow, detector.backbone)
