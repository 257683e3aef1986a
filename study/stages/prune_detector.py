"""The stage that prunes inside a detector."""

from itertools import islice

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detect.data import class_names
from detect.data.loader import train_loader
from detect.data.open import open_detection
from detect.prune import detection_losses, prune_detector
from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.methods import get_method
from study.config.detector import check_pyramid
from study.stages.cost_left import cost_left
from study.stages.detector import groups_inside, load_detector
from study.stages.network import Network, save_weights
from study.stages.prune import after_masks, choosing_facts, pruning_facts
from study.stages.settings import PruneDetector, TrainDetector
from study.stages.stage import Context, Stage


def run_prune_detector(context: Context) -> dict[str, object]:
    """Prune the backbone of the parent's detector, or also its FPN; artifacts: plan.json, weights.safetensors."""
    stage, settings = context.stage, context.stage.read(PruneDetector)
    parent = stage.parents[0]
    trained = parent.read(TrainDetector)
    if settings.structural is not None:
        raise Refusal(f"target {settings.target!r} is a shape of a classifier; prune it before the transfer")
    dataset = open_detection(trained.data, "train", context.data)
    network, detector, cfg = load_detector(parent, context.runs, len(class_names(dataset)), device=context.device)
    if settings.scope != "backbone":
        check_pyramid(settings.method, cfg.MODEL.FPN.NORM)
    groups = prunable_groups(stage, network, network.build(), detector.backbone)
    loader = train_loader(dataset, cfg, batch_size=trained.train.batch_size, seed=stage.seed)
    looks = get_method(settings.method).needs != "nothing"
    # one in any case: on it the masked detector is compared with the smaller one
    batches = list(islice(loader, settings.calibration.batches if looks else 1))
    pruned = prune_detector(
        detector,
        network.arch,
        groups,
        settings.method,
        settings.selection,
        batch=detector.preprocess_image(batches[0]).tensor,
        seed=stage.seed,
        options=after_masks(settings.method, settings.method_options(), network.masks),
        losses=detection_losses(batches) if looks else None,
        scope=settings.scope,
        allow_partial=settings.allow_partial,
        cost_left=cost_left(network, groups) if settings.selection.cost_target else None,
    )
    small = network.then(pruned.plan, {name: mask.cpu() for name, mask in pruned.masks.items()})
    small.save(context.run)
    save_weights(context.run.weights, pruned.detector)
    return {
        "metrics": {},
        "network": small.as_result() | small.costs(),
        "dense": network.dense().costs(),
        **pruning_facts(pruned, network.costs(), small.costs()),
        **choosing_facts(pruned, sum(map(len, batches)) if looks else None),
        "train_macs": 0,
    }


def prunable_groups(stage: Stage, network: Network, classifier: nn.Module, fpn: nn.Module | None) -> list[Group]:
    """What a pruning stage may narrow of the detector before it: of its backbone, or of that and `fpn`.

    ValueError where the stage's method cannot prune a backbone with the detector's normalisation.
    """
    settings, before = stage.read(PruneDetector), stage.parents[0].read(TrainDetector).model
    # the detector's norm takes the place of BatchNorm alone; other norms stay as the classifier has them
    if any(isinstance(layer, _BatchNorm) for layer in classifier.modules()):
        _check_norm(settings, before.norm)
    return groups_inside(before.strides, settings.scope, network, classifier, fpn)


def _check_norm(settings: PruneDetector, norm: str) -> None:
    """ValueError where the settings' method cannot prune a network whose BatchNorm has become `norm`."""
    name, method = settings.method, get_method(settings.method)
    ways = "set detector.model.norm to BN or SyncBN, or leave out pruning inside the detector"
    if norm == "FrozenBN" and method.by_norms:
        raise Refusal(f"detector.model.norm: FrozenBN: {name} needs scales of BatchNorm that training moves; {ways}")
    if norm == "GN" and not method.unstructured(settings.method_options()):
        raise Refusal(f"detector.model.norm: GN: GroupNorm mixes the channels that {name} removes; {ways}")
