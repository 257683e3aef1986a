"""Prune the backbone inside a trained detector, with the same methods as a classifier."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from torch import Tensor, nn

from detect.backbone import ClassifierBackbone
from pruning.groups import Group, find_groups
from pruning.plan import PruningPlan
from pruning.prune import Arch, prune
from pruning.select import Selection


@dataclass(frozen=True)
class PrunedDetector:
    """The smaller detector, the plan of its backbone, and how far masked and smaller features differed.

    `masks`: 0/1 tensors by parameter name of the bottom-up network's `body`, of a method that removes single weights;
    they are applied, and training must hold them.
    """

    detector: GeneralizedRCNN
    plan: PruningPlan
    difference: float
    masks: Mapping[str, Tensor] = field(default_factory=dict)


def backbone_groups(
    classifier: nn.Module, example: Tensor, *, strides: Sequence[int], stages: Sequence[str] = ()
) -> list[Group]:
    """The channel groups of a classifier that no feature of these strides hands on: the FPN keeps its inputs.

    They are found with the classifier's own normalisation: a frozen one has the same names but cannot be traced.
    """
    body = ClassifierBackbone(classifier, strides=tuple(strides), norm="BN", freeze_at=0).body
    return find_groups(body, example, stages=stages)


def prune_detector(
    detector: GeneralizedRCNN,
    arch: Arch,
    groups: Sequence[Group],
    method: str,
    selection: Selection,
    *,
    batch: Tensor,
    seed: int,
    options: Any = None,
    loss: Callable[[GeneralizedRCNN], Tensor] | None = None,
) -> PrunedDetector:
    """Prune the bottom-up network of `detector`, which is not changed.

    `groups` come from `backbone_groups`; `batch` (N, 3, H, W) is a normalised input on which masked and smaller
    features must agree; `loss(detector)` runs calibration batches through a detector and returns its mean loss.
    """
    body = detector.backbone.bottom_up.body

    def calibration(candidate: nn.Module) -> Tensor:
        assert loss is not None
        with _body(detector, candidate):
            return loss(detector)

    pruned = prune(
        body,
        arch,
        groups,
        method,
        selection,
        batch=batch,
        seed=seed,
        options=options,
        calibration=calibration if loss is not None else None,
    )
    with _body(detector, pruned.model):
        small = copy.deepcopy(detector)
    return PrunedDetector(small, pruned.plan, pruned.difference, pruned.masks)


@contextmanager
def _body(detector: GeneralizedRCNN, body: nn.Module) -> Iterator[None]:
    """The detector with another bottom-up network; the old one returns."""
    bottom_up = detector.backbone.bottom_up
    original = bottom_up.body
    try:
        bottom_up.body = body
        yield
    finally:
        bottom_up.body = original


def detection_loss(batches: Sequence[list[dict[str, Any]]]) -> Callable[[GeneralizedRCNN], Tensor]:
    """The mean training loss of a detector over fixed batches; gradients flow if they are enabled."""

    def loss(detector: GeneralizedRCNN) -> Tensor:
        training = detector.training
        detector.train()
        try:
            torch.manual_seed(0)  # the sampling of anchors and regions
            return torch.stack([sum(detector(batch).values()) for batch in batches]).mean()  # type: ignore[arg-type]
        finally:
            detector.train(training)

    return loss
