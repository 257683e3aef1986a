"""A network as a run or `prune-transfer prune` left it in a folder: its plan and its weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from classify.data.imagenet import IMAGENET_MEAN, IMAGENET_STD
from classify.models import build, rebuild
from classify.models.normalization import published_normalization
from pruning.errors import Refusal
from pruning.plan import PruningPlan
from training.files import read_json
from training.run_files import NORMALIZATION, PLAN, RESULT, WEIGHTS

_IN_A_DETECTOR = "backbone.bottom_up.body."  # before the names of a backbone's tensors among a detector's
_OF_AN_FPN = "fpn_"
_COUNTER = "num_batches_tracked"  # does not influence what a network computes


class _Said(TypedDict, total=False):
    """What a result says of its network, of which these keys are read."""

    num_classes: int
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class KeptNetwork:
    """The classifier, and what its input is normalised by: RGB in 0..1.

    `absent`: names of its tensors that the folder does not have: of a backbone inside a detector, the head's and what
    lies behind its last level.
    """

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    absent: frozenset[str]


def read_kept(folder: Path) -> KeptNetwork:
    """The network of a classifier's or a detector's run directory, or of the folder that `prune-transfer prune` wrote.

    ValueError where there is none, or plan and weights do not fit.
    """
    for name in (PLAN, WEIGHTS):
        if not (folder / name).is_file():
            raise Refusal(
                f"{folder}: it has no {name}; name a run directory with a network, or what `prune-transfer prune` wrote"
            )
    weights, header = _read(folder / WEIGHTS)
    plan = PruningPlan.load(folder / PLAN).part(lambda name: not name.startswith(_OF_AN_FPN))
    if any(name.startswith(_IN_A_DETECTOR) for name in weights):
        weights = {n.removeprefix(_IN_A_DETECTOR): t for n, t in weights.items() if n.startswith(_IN_A_DETECTOR)}
    said: _Said = read_json(folder / RESULT)["network"] if (folder / RESULT).is_file() else {}
    model = rebuild(plan, said.get("num_classes") or _number_of_classes(plan, weights))
    wanted = model.state_dict()
    odd = [name for name, tensor in weights.items() if name not in wanted or wanted[name].shape != tensor.shape]
    if odd:
        raise Refusal(f"{folder}: {len(odd)} tensors of {WEIGHTS} do not fit {PLAN}, such as {odd[0]}")
    model.load_state_dict({**wanted, **weights})
    absent = frozenset(name for name in wanted if name not in weights and not name.endswith(_COUNTER))
    mean, std = _normalization(plan, said or json.loads(header.get(NORMALIZATION, "{}")))
    return KeptNetwork(model, mean, std, absent)


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise Refusal(f"{path}: not readable as safetensors ({error})") from error


def _number_of_classes(plan: PruningPlan, weights: Mapping[str, Tensor]) -> int:
    """As the head has it: the tensor whose shape differs between networks of two and of three classes."""
    two, three = (build(plan.arch, count, plan.options).state_dict() for count in (2, 3))
    for name, tensor in two.items():
        if tensor.shape != three[name].shape and name in weights:
            axis = next(k for k, (a, b) in enumerate(zip(tensor.shape, three[name].shape, strict=True)) if a != b)
            return weights[name].shape[axis]
    return 2  # there is no head


def _normalization(plan: PruningPlan, said: _Said) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What the folder says, else what the architecture's published weights were trained with, else ImageNet's."""
    if "mean" in said:
        return tuple(said["mean"]), tuple(said["std"])
    published = published_normalization(plan.arch, plan.options)
    return (IMAGENET_MEAN, IMAGENET_STD) if published is None else (published.mean, published.std)
