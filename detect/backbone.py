"""Any classifier as a Detectron2 backbone."""

import copy
from collections.abc import Callable, Collection
from itertools import pairwise

from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detect.features import cut_between, cut_off, find_cuts, select_features, trace_layers
from pruning.errors import Refusal
from pruning.graph.layers import scatters_kept
from training.norm_layers import take_children

NORMS = ("FrozenBN", "BN", "SyncBN", "GN")
_GN_GROUPS = 32  # Wu & He, Group Normalization, ECCV 2018, section 4: the default G


class ClassifierBackbone(Backbone):
    """A classifier without its head, returning feature maps {"s4": (N, C, H/4, W/4), "s8": ...}.

    `classifier` maps normalised RGB (N, 3, H, W) to logits; it is copied, not changed. Its layers keep
    their names and weights under `body` (`body.layer1.0.conv1.weight`).

    `norm` replaces every BatchNorm layer: "FrozenBN" by fixed statistics, scale and shift, "BN" leaves
    it, "SyncBN" by statistics over all processes, "GN" by GroupNorm in 32 groups (the largest divisor
    of the width up to 32 if 32 does not divide it) with *fresh* scale and shift. An activation or a dropout that
    a BatchNorm holds stays where it is. Normalisations of other kinds are left as they are.

    `freeze_at` counts frozen stages as Detectron2's FREEZE_AT does: 0 none; 1 the stem, that is all
    layers up to the last activation of lower stride than `strides[0]`; 2 also the stage of `strides[0]`;
    and so on. A frozen stage's parameters need no gradient and its BatchNorm is "FrozenBN". A network
    whose first layer already has `strides[0]` has an empty stem.
    """

    def __init__(
        self,
        classifier: nn.Module,
        *,
        strides: tuple[int, ...] = (4, 8, 16, 32),
        norm: str = "FrozenBN",
        freeze_at: int = 0,
    ):
        super().__init__()
        _check_arguments(strides, norm, freeze_at)
        layers = trace_layers(copy.deepcopy(classifier))
        cuts = find_cuts(layers)
        features = select_features(cuts, strides, type(classifier).__name__)
        ends = [-1, *(cut.position for cut in features.values())]
        ends[0] = max((cut.position for cut in cuts if cut.whole and cut.stride < strides[0]), default=-1)
        if freeze_at > 1 and not all(cut.whole for cut in features.values()):
            raise Refusal(
                f"freeze_at={freeze_at}: the stages of {type(classifier).__name__} are computed side by side and cannot"
                " be frozen one after the other; choose 0 or 1"
            )
        frozen = _layers_until(layers, ends[freeze_at - 1]) if freeze_at else set()

        self.body = cut_off(layers, {f"s{s}": cut for s, cut in features.items()}).train()
        self._out_features = [f"s{s}" for s in strides]
        self._out_feature_strides = {f"s{s}": s for s in strides}
        self._out_feature_channels = {f"s{s}": cut.channels for s, cut in features.items()}
        with scatters_kept(self.body):
            _freeze(self.body, frozen)
            _convert_norms(self.body, norm)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.body(x)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Width and stride of each feature, as found in the network."""
        return super().output_shape()


def stage_after(classifier: nn.Module, stride: int, *, norm: str = "FrozenBN") -> tuple[nn.Module, int]:
    """The classifier's layers from its feature of `stride` to that of twice the stride, and the width these end with.

    `classifier` is copied; `norm` is as in ClassifierBackbone. ValueError if no such stage follows.
    """
    _check_arguments((stride,), norm, 0)
    layers = trace_layers(copy.deepcopy(classifier))
    name = type(classifier).__name__
    try:
        ends = select_features([cut for cut in find_cuts(layers) if cut.whole], (stride, 2 * stride), name)
    except ValueError as error:
        raise Refusal(
            f"{error}; the head of a single level at stride {stride} is the stage from it to stride {2 * stride}"
        ) from error
    stage = cut_between(layers, ends[stride], ends[2 * stride]).train()
    with scatters_kept(stage):
        _convert_norms(stage, norm)
    return stage, ends[2 * stride].channels


def _check_arguments(strides: tuple[int, ...], norm: str, freeze_at: int) -> None:
    if not strides or any(b != 2 * a for a, b in pairwise(strides)):
        raise Refusal(f"strides={strides} must double from one to the next, such as (4, 8, 16, 32)")
    if norm not in NORMS:
        raise Refusal(f"norm={norm!r} is not one of {', '.join(NORMS)}")
    if not 0 <= freeze_at <= len(strides) + 1:
        raise Refusal(f"freeze_at={freeze_at} is outside 0..{len(strides) + 1} for {len(strides)} strides")
    if norm == "GN" and freeze_at:
        raise Refusal(f"freeze_at={freeze_at} would freeze fresh GroupNorm weights; norm='GN' needs 0")


def _layers_until(layers, position: int) -> set[str]:
    """Names of the modules and parameters that are used at or before `position`, and never after."""
    last_use = {
        str(node.target): i for i, node in enumerate(layers.graph.nodes) if node.op in ("call_module", "get_attr")
    }
    return {name for name, i in last_use.items() if i <= position}


def _freeze(body: nn.Module, layers: set[str]) -> None:
    for name, parameter in body.named_parameters():
        if any(name == layer or name.startswith(f"{layer}.") for layer in layers):
            parameter.requires_grad_(False)
    _replace_norms(body, _frozen, layers)


def _convert_norms(body: nn.Module, norm: str) -> None:
    """Replace the BatchNorm layers of `body`, in place."""
    if norm != "BN":
        _replace_norms(body, {"FrozenBN": _frozen, "SyncBN": _synchronised, "GN": _group_norm}[norm])


def _replace_norms(
    body: nn.Module, replacement: Callable[[_BatchNorm], nn.Module], only: Collection[str] | None = None
) -> None:
    """Put `replacement(layer)` in the place of each BatchNorm (of the names `only`); what it wraps stays behind it."""
    modules = dict(body.named_modules(remove_duplicate=False))
    norms = {name: m for name, m in modules.items() if isinstance(m, _BatchNorm) and (only is None or name in only)}
    new = {id(norm): take_children(replacement(norm), norm) for norm in norms.values()}  # one of two names stays one
    for name, norm in norms.items():
        parent, _, leaf = name.rpartition(".")
        setattr(body.get_submodule(parent), leaf, new[id(norm)])


def _frozen(norm: _BatchNorm) -> nn.Module:
    if norm.running_mean is None:
        raise Refusal(f"{type(norm).__name__} keeps no running statistics, so it cannot be frozen; use norm 'BN'")
    with norm.running_mean.device:  # a network of shapes alone stays one
        return FrozenBatchNorm2d.convert_frozen_batchnorm(norm)


def _synchronised(norm: _BatchNorm) -> nn.Module:
    return nn.SyncBatchNorm.convert_sync_batchnorm(norm)


def _group_norm(norm: _BatchNorm) -> nn.Module:
    groups = max(g for g in range(1, _GN_GROUPS + 1) if norm.num_features % g == 0)
    return nn.GroupNorm(groups, norm.num_features, eps=norm.eps)
