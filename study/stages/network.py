"""The network of a stage: its plan, its input, its weights; from a run directory or, ahead of it, from a config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from classify.data import Splits
from classify.models import arch, channel_groups, in_channels, rebuild, traced_part
from classify.models.blank import rebuild_blank
from pruning.cost import count_macs, count_params, masked_costs
from pruning.cut import Arch
from pruning.errors import Refusal
from pruning.graph.groups import Group
from pruning.masks import Masks
from pruning.plan import PruningPlan
from study.stages.settings import OwnNetwork, Prune, TakeWeights, TrainClassifier
from study.stages.stage import Stage
from study.stages.store import RunDir
from training.files import write_bytes, write_text

OF_THE_DATA = "of the data set"
_PYRAMID = ("fpn_", "top_block.")  # how Detectron2 names an FPN's layers; no classifier's layer is named so


class Sizes(TypedDict):
    """Of a classifier at its input size; `density`: the share of weights that masks leave, where there are any."""

    params: int
    macs: int
    density: NotRequired[float]


@dataclass(frozen=True)
class Network:
    """A classifier's architecture and the input it was made for: image side in pixels, mean and std in 0..1.

    `normalization` says whose mean and std these are.

    Of one that was pruned together with a detector's FPN, plan and masks name layers of the FPN as well.
    """

    plan: PruningPlan
    num_classes: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    masks: Masks | None = None  # where single weights were removed
    normalization: str = OF_THE_DATA

    @property
    def arch(self) -> Arch:
        return arch(self.plan.arch, self.plan.options)

    def build(self) -> nn.Module:
        """The network with random weights from the current generator."""
        return rebuild(self.backbone().plan, self.num_classes)

    def example(self) -> Tensor:
        """A zero image batch (1, C, H, W)."""
        return torch.zeros(1, len(self.mean), self.image_size, self.image_size)

    def backbone(self) -> "Network":
        """The classifier alone, without what was removed of an FPN."""
        masks = {name: mask for name, mask in (self.masks or {}).items() if not name.startswith(_PYRAMID)}
        plan = self.plan.part(lambda name: not name.startswith(_PYRAMID))
        return replace(self, plan=plan, masks=Masks(masks) if masks else None)

    def pyramid_plan(self) -> PruningPlan:
        """What was removed of an FPN; most often nothing."""
        return self.plan.part(lambda name: name.startswith(_PYRAMID))

    def dense(self) -> "Network":
        """The same network before any pruning."""
        return replace(self, plan=PruningPlan(self.plan.arch, self.plan.options), masks=None)

    def then(self, plan: PruningPlan, masks: Mapping[str, Tensor]) -> "Network":
        """This network after one more pruning: channels removed by `plan`, or weights left by `masks`."""
        # the masks are of the layers' shapes as they are
        if self.masks is not None and plan.changes_shape:
            raise Refusal("channels cannot be removed from a network that single weights were removed from")
        return replace(self, plan=self.plan.then(plan, self._groups(plan)), masks=Masks(masks) if masks else self.masks)

    def _groups(self, later: PruningPlan) -> Sequence[Group]:
        """The dense network's groups, where a later plan cannot be put behind this network's without them."""
        if not self.plan.needs_groups(later):
            return ()
        # the groups below are a classifier's: nothing tells here how the layers of an FPN hang together
        if any(name.startswith(_PYRAMID) for name in (*self.plan.keep, *later.select, *later.scatter)):
            raise Refusal("an FPN that was pruned once, and is cut inside its trunk now, cannot be pruned again")
        dense = self.dense()
        return dense_groups(dense, dense.build())

    def costs(self) -> Sizes:
        """`params` and `macs` of the classifier at its input size; weights that masks remove do not count."""
        backbone = self.backbone()
        if backbone.masks is None:
            params, macs = _sizes(backbone.plan.to_json(), self.num_classes, self.image_size, len(self.mean))
            return {"params": params, "macs": macs}
        masks = backbone.masks
        params, macs = masked_costs(self.build(), masks, self.example())
        return {"params": params, "macs": macs, "density": masks.density()}

    def save(self, run: RunDir) -> None:
        """Write `plan.json`, and `masks.safetensors` where there are masks."""
        write_text(run.plan, self.plan.to_json())
        if self.masks is not None:
            write_bytes(run.masks, self.masks.to_bytes())

    def as_result(self) -> dict[str, object]:
        """What a result records of it beside `plan.json`."""
        return {
            "num_classes": self.num_classes,
            "image_size": self.image_size,
            "mean": list(self.mean),
            "std": list(self.std),
            "normalization": self.normalization,
        }

    def normalization_note(self) -> str:
        """What a result says of images that are not normalised by their own data set's mean and deviation."""
        numbers = f"mean {', '.join(map(str, self.mean))} and std {', '.join(map(str, self.std))}"
        return f"images are normalised by {numbers}: those {self.normalization}"

    @classmethod
    def load(cls, run: RunDir) -> "Network":
        """Read it from a finished run."""
        result = run.read_result()
        data = result["network"]
        mean, std = tuple(data["mean"]), tuple(data["std"])
        masks = Masks.load(run.whole(run.masks)) if run.masks.name in result["artifacts"] else None
        plan, source = PruningPlan.load(run.whole(run.plan)), data.get("normalization", OF_THE_DATA)
        return cls(plan, data["num_classes"], data["image_size"], mean, std, masks, source)


@lru_cache(maxsize=64)
def _sizes(plan: str, num_classes: int, image_size: int, channels: int) -> tuple[int, int]:
    """Parameters and multiply-adds; kept, as every stage of a route asks for those of the same few networks."""
    with torch.random.fork_rng(devices=[]):  # others' constructors draw
        model = rebuild_blank(PruningPlan.from_json(plan), num_classes)
    return count_params(model), count_macs(model, torch.zeros(1, channels, image_size, image_size))


def load_model(run: RunDir) -> nn.Module:
    """The classifier of a finished run with its weights."""
    model = Network.load(run).build()
    model.load_state_dict(read_weights(run.weights))
    return model


def save_weights(path: Path, model: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """Write all tensors of a network as safetensors, atomically; `metadata` goes into the file's header."""
    # cloned, since safetensors refuses two names for one memory, as tied weights have
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write_bytes(path, save(state, metadata))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read an artifact of a finished run; ValueError names one that is missing, damaged or changed."""
    RunDir(path.parent).whole(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Refusal(f"{path}: not readable as safetensors ({error}); delete its run to train it again") from error


def dense_groups(network: Network, model: nn.Module) -> list[Group]:
    """The channel groups of a network as it is now."""
    return channel_groups(network.plan.arch, model, traced_part(network.plan.arch, network.example()))


def own_network(stage: Stage) -> OwnNetwork:
    """The network that a stage makes from its own settings, as one that `starts_dense` does."""
    if stage.kind in ("train_classifier", "take_weights"):
        return stage.read(TrainClassifier if stage.kind == "train_classifier" else TakeWeights)
    found = stage.read(Prune).network
    assert found is not None
    return found


def dense_network(own: OwnNetwork, data: Splits) -> Network:
    """The unpruned network of a stage, for the data it is trained on.

    ValueError where network, data set and normalisation are not of the same number of channels.
    """
    check_channels(own, data.train.shape[0])
    plan = PruningPlan(own.arch, own.arch_options)
    network = Network(plan, len(data.train.classes), data.train.shape[-1], tuple(data.mean), tuple(data.std))
    given = own.normalization
    return network if given is None else replace(network, mean=given.mean, std=given.std, normalization=given.source)


def made_network(own: OwnNetwork) -> Network:
    """The unpruned network of weights that no data set comes with; ValueError unless its normalisation fits it."""
    made, given = own.made_for, own.normalization
    assert made is not None and given is not None
    _check_normalization(own, in_channels(own.arch, own.arch_options), f"{own.arch!r} reads")
    plan = PruningPlan(own.arch, own.arch_options)
    return Network(plan, made.num_classes, made.image_size, given.mean, given.std, normalization=given.source)


def check_channels(own: OwnNetwork, channels: int) -> None:
    """ValueError unless this network, and its normalisation, are for images of `channels` channels."""
    dataset, read = own.dataset["name"], in_channels(own.arch, own.arch_options)
    if read != channels:
        raise Refusal(
            f"classifier.arch {own.arch!r} reads {read} channels, the images of data set {dataset!r} have {channels};"
            f" choose another data set, or a network for {channels} (`in_channels` in the options of some of ours,"
            " `in_chans` in those of timm's)"
        )
    _check_normalization(own, channels, f"the images of data set {dataset!r} have")


def _check_normalization(own: OwnNetwork, channels: int, whose: str) -> None:
    given = own.normalization
    if given is not None and len(given.mean) != channels:
        raise Refusal(
            f"the normalisation {given.source} is of {len(given.mean)} channels, {whose} {channels}; set"
            " classifier.normalization to mean and std of as many"
        )


def dense_training(stage: Stage) -> Stage:
    """The training of the dense network that a pruned one comes from; ValueError if it comes from none."""
    while stage.parents:
        stage = stage.parents[0]
    if stage.kind != "train_classifier":
        raise Refusal(f"{stage.id} is no training, so there is nothing to rewind to")
    return stage


def starts_dense(stage: Stage) -> bool:
    """Does this stage make its network from its own settings, rather than take over its parent's?"""
    return not stage.parents or (stage.kind == "prune" and "arch" in stage.settings)
