"""A detector's body and its FPN as one network, whose channels can be pruned together.

The outputs of all lateral convolutions are added up from the top down, so they are one group, which the output
convolutions read. These keep the width of what they compute: the heads read it, whose inputs, and so weights that are
no part of a backbone, would have to follow; so do RetinaNet's convolutions for the levels on top. A trunk that is
narrowed takes the inputs of the laterals, and of the first of those, along.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from detectron2.modeling import FPN, Backbone
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detect.backbone import ClassifierBackbone
from detect.features import LayerTracer
from pruning.errors import Refusal
from pruning.graph.groups import find_groups
from pruning.graph.members import Group
from pruning.graph.shapes import fill_with_zeros
from pruning.plan import PruningPlan
from pruning.surgery import apply

_BOTTOM_UP = "bottom_up."


def join(fpn: FPN, body: nn.Module | None = None) -> fx.GraphModule:
    """Image (N, 3, H, W) -> {"p2": ...}: layers of the body under the classifier's names, of the FPN under its own.

    The layers are those of `fpn`, not copies; `body`: another network in the place of its bottom-up network's.
    ValueError where an FPN's layer has a normalisation that mixes channels.
    """
    view = copy.copy(fpn)
    view._modules = {**fpn._modules, "bottom_up": body or fpn.bottom_up.body}
    graph = _PyramidTracer().trace(view)
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = str(node.target).removeprefix(_BOTTOM_UP)
    root = copy.copy(view.bottom_up)
    own = {name: _bare(layer) for name, layer in fpn._modules.items() if name != "bottom_up"}
    root._modules = {**view.bottom_up._modules, **own}
    return fx.GraphModule(root, graph, class_name="BodyAndPyramid").train(fpn.training)


def pyramid_groups(
    fpn: FPN, classifier: nn.Module, example: Tensor, *, strides: Sequence[int], stages: Sequence[str] = ()
) -> list[Group]:
    """The channel groups of a classifier with `fpn` on its features of these strides; no other weights are looked at.

    The classifier may be on the meta device.

    Stage outputs are among them, since the laterals that read them can follow. The FPN's own is the last stage.
    """
    # with the classifier's own normalisation: a frozen one has the same names but cannot be traced
    body = ClassifierBackbone(classifier, strides=tuple(strides), norm="BN", freeze_at=0).body
    fill_with_zeros(body)
    fpn = copy.deepcopy(fpn).to(example.device)  # the detector may be on a GPU
    # as in the classifier, after whose first producer a plan names a group
    order = {name: i for i, (name, _) in enumerate(classifier.named_modules())}
    groups = []
    for group in find_groups(join(fpn, body), example, stages=stages):
        producers = tuple(sorted(group.producers, key=lambda name: order.get(name, len(order))))
        groups.append(_as_stage(replace(group, name=producers[0], producers=producers), fpn, len(stages)))
    return sorted(groups, key=lambda group: order.get(group.name, len(order)))


def narrow_pyramid(fpn: FPN, plan: PruningPlan) -> None:
    """Carry out, in place, the part of a plan that names layers of the FPN; its inputs have followed the trunk."""
    layers = join(fpn, _Features(fpn.bottom_up))
    side = 2 * fpn.size_divisibility
    groups = find_groups(layers, torch.zeros(1, 3, side, side, device=next(fpn.parameters()).device))
    put_back(fpn, apply(layers, plan, groups))


def put_back(fpn: FPN, layers: nn.Module) -> None:
    """Make the FPN's layers, in place, those of a smaller `join`; the body is not touched."""
    for name, layer in _layers(fpn).items():
        new: Any = layers.get_submodule(name)
        if not _has_norm(layer):
            layer.__class__ = new.__class__
        elif type(new) is not nn.Conv2d:
            raise Refusal(f"{name}: a normalisation of its own follows, so it cannot scatter outputs or select inputs")
        layer.__dict__ = new.__dict__


class JoinedBackbone(Backbone):
    """A `join` in the place of a detector's FPN, for as long as it is looked at."""

    def __init__(self, fpn: FPN, layers: nn.Module):
        super().__init__()
        self.layers = layers
        self._size_divisibility = fpn.size_divisibility
        self._padding_constraints = fpn.padding_constraints

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.layers(x)

    @property
    def size_divisibility(self) -> int:
        """As the FPN's."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """As the FPN's."""
        return self._padding_constraints


class _Features(nn.Module):
    """Constant features of a bottom-up network's widths, by which an FPN alone can be traced."""

    def __init__(self, bottom_up: ClassifierBackbone):
        super().__init__()
        self.shapes = bottom_up.output_shape()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {
            name: nn.functional.avg_pool2d(x, shape.stride).mean(1, keepdim=True).repeat(1, shape.channels, 1, 1)
            for name, shape in self.shapes.items()
        }


class _PyramidTracer(LayerTracer):
    """Takes an FPN's layer with a normalisation apart, and looks into the level on top, which returns a list."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in ("top_block", "bottom_up") and super().is_leaf_module(
            m, module_qualified_name
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        if not _has_norm(m):
            return super().call_module(m, forward, args, kwargs)
        name = self.path_of_module(m)
        return self.create_proxy(
            "call_module", f"{name}.norm", (self.create_proxy("call_module", name, args, kwargs),), {}
        )


def _layers(fpn: FPN) -> dict[str, nn.Conv2d]:
    """The lateral and output convolutions, and RetinaNet's of the levels on top, by name."""
    return {
        name: layer
        for name, layer in fpn.named_modules()
        if isinstance(layer, nn.Conv2d) and not name.startswith(_BOTTOM_UP)
    }


def _has_norm(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and getattr(layer, "norm", None) is not None


def _bare(layer: nn.Module) -> nn.Module:
    """An FPN's layer, or, where it has a normalisation, one with the same tensors that does not call it."""
    if not _has_norm(layer):
        return layer
    if not isinstance(layer.norm, _BatchNorm):
        raise Refusal(
            f"an FPN with {type(layer.norm).__name__} cannot be pruned: set MODEL.FPN.NORM to BN or leave it out"
        )
    bare = copy.copy(layer)
    bare.__class__ = nn.Conv2d
    return bare


def _as_stage(group: Group, fpn: FPN, stage: int) -> Group:
    """The FPN's group counts as an inner one: no shortcut of the classifier runs through it."""
    own = set(group.producers) <= set(_layers(fpn))
    return replace(group, stage=stage, apart=True) if own else group
