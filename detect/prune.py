"""Prune the backbone inside a trained detector, alone or with its FPN, with the same methods as a classifier."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Unpack

import torch
from detectron2.modeling import FPN, GeneralizedRCNN
from detectron2.utils.events import EventStorage
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detect.backbone import ClassifierBackbone
from detect.data.records import Record
from detect.pyramid import JoinedBackbone, join, put_back
from pruning.achieved import Achieved
from pruning.cut import Arch, Terms, prune
from pruning.errors import Refusal
from pruning.graph.groups import find_groups
from pruning.graph.members import Group
from pruning.graph.shapes import fill_with_zeros
from pruning.modes import evaluation_mode
from pruning.plan import PruningPlan
from pruning.select import Selection

Scope = Literal["backbone", "backbone+fpn"]
"""What is pruned of a detector: its bottom-up network, or that and the FPN behind it (see `pyramid.py`)."""


@dataclass(frozen=True)
class PrunedDetector:
    """The smaller detector, the plan of its backbone, and how far masked and smaller features differed.

    `masks`: 0/1 tensors by parameter name of the bottom-up network's `body`, of a method that removes single weights;
    they are applied, and training must hold them. In scope "backbone+fpn" plan and masks also name layers of the FPN.
    `seconds`: what choosing took.
    """

    detector: GeneralizedRCNN
    plan: PruningPlan
    difference: float | None
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    achieved: Achieved | None = None
    seconds: float | None = None


def backbone_groups(
    classifier: nn.Module, example: Tensor, *, strides: Sequence[int], stages: Sequence[str] = ()
) -> list[Group]:
    """The channel groups of a classifier that no feature of these strides hands on: the FPN keeps its inputs.

    They are found with the classifier's own normalisation: a frozen one has the same names but cannot be traced. One
    on the meta device will do.
    """
    body = ClassifierBackbone(classifier, strides=tuple(strides), norm="BN", freeze_at=0).body
    fill_with_zeros(body)
    return find_groups(body, example, stages=stages)


def prune_detector(
    detector: GeneralizedRCNN,
    arch: Arch,
    groups: Sequence[Group],
    method: str,
    selection: Selection,
    *,
    batch: Tensor,
    losses: Callable[[GeneralizedRCNN], Iterator[Tensor]] | None = None,
    scope: Scope = "backbone",
    **terms: Unpack[Terms],
) -> PrunedDetector:
    """Prune `scope` of `detector`, which is not changed.

    `groups` come from `backbone_groups`, or from `pyramid_groups` for a scope with the FPN; `batch` (N, 3, H, W) is a
    normalised input on which masked and smaller features must agree; `losses(detector)` runs calibration batches
    through a detector and yields the loss of each. `terms`: as of any pruning. ValueError for a detector without an
    FPN in a scope with one.
    """
    network = _prunable(detector, scope)

    def calibration(candidate: nn.Module) -> Iterator[Tensor]:
        assert losses is not None
        with _looking_through(candidate, detector, scope):
            yield from losses(detector)

    pruned = prune(
        network,
        arch,
        groups,
        method,
        selection,
        batch=batch,
        calibration=calibration if losses is not None else None,
        **terms,
    )
    small = copy.deepcopy(detector)
    _install(pruned.model, small, scope, batch)
    return PrunedDetector(small, pruned.plan, pruned.difference, pruned.masks, pruned.achieved, pruned.seconds)


def _prunable(detector: GeneralizedRCNN, scope: Scope) -> nn.Module:
    if scope == "backbone":
        return detector.backbone.bottom_up.body
    if not isinstance(detector.backbone, FPN):
        raise Refusal(f"scope {scope!r} needs a detector with an FPN, this one has {type(detector.backbone).__name__}")
    return join(detector.backbone)


@contextmanager
def _looking_through(network: nn.Module, detector: GeneralizedRCNN, scope: Scope) -> Iterator[None]:
    """The detector with another network in the place of what is pruned; the old one returns."""
    owner, name = (detector.backbone.bottom_up, "body") if scope == "backbone" else (detector, "backbone")
    original = getattr(owner, name)
    try:
        setattr(owner, name, network if scope == "backbone" else JoinedBackbone(original, network))
        yield
    finally:
        setattr(owner, name, original)


def _install(network: nn.Module, detector: GeneralizedRCNN, scope: Scope, batch: Tensor) -> None:
    """Give `detector`, in place, the layers of the smaller network; `batch` tells the widths of its features."""
    bottom_up = detector.backbone.bottom_up
    if scope == "backbone":
        bottom_up.body = network
        return
    put_back(detector.backbone, network)
    bottom_up.body = fx.GraphModule(network, bottom_up.body.graph, class_name="Body")
    with torch.no_grad(), evaluation_mode(bottom_up):
        bottom_up._out_feature_channels = {name: int(found.shape[1]) for name, found in bottom_up(batch).items()}


def detection_losses(batches: Sequence[list[Record]]) -> Callable[[GeneralizedRCNN], Iterator[Tensor]]:
    """The training loss of a detector on each of fixed batches; gradients flow if they are enabled.

    Normalisation and dropout are as in evaluation: running statistics neither move nor give way to a batch's own.
    Modes, buffers (RetinaNet's losses move one) and the random generators are as before afterwards.
    """

    def losses(detector: GeneralizedRCNN) -> Iterator[Tensor]:
        # Detectron2's heads write to the storage that a trainer of its own would have opened
        gpus = [detector.device] if detector.device.type == "cuda" else []
        with _losses_asked_for(detector), EventStorage(), torch.random.fork_rng(devices=gpus):
            torch.manual_seed(0)  # the sampling of anchors and regions
            for batch in batches:
                yield torch.stack(list(detector(batch).values())).sum()

    return losses


@contextmanager
def _losses_asked_for(detector: GeneralizedRCNN) -> Iterator[None]:
    """Training mode, in which a detector returns losses, but not for the layers that compute something else in it."""
    modes = {m: m.training for m in detector.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in detector.buffers()]
    try:
        detector.train()
        detector.backbone.eval()
        for module in detector.modules():
            if isinstance(module, _BatchNorm) or not any(True for _ in module.children()):
                module.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for buffer, value in buffers:
            buffer.copy_(value)
