"""Records the operations of a network by torch_pruning's dependency graph, and leaves the network as it was."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.modes import evaluation_mode

if TYPE_CHECKING:
    import torch_pruning as tp


def trace(model: nn.Module, example: Tensor) -> "tp.DependencyGraph":
    """The graph of `model` on the input batch `example`; ValueError for a network that cannot be traced.

    Whatever goes wrong in there does so in the network's own forward pass or in the tracer.
    """
    import torch_pruning as tp  # here, not above: it loads timm, 31 MB, and a training of what is whole needs neither

    try:
        with traceable(model), _forgiving(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # a list: a tensor would be unpacked into one argument an image, and convolutions accept single images
            return tp.DependencyGraph().build_dependency(model, [example], output_transform=_outputs, verbose=False)
    except torch.OutOfMemoryError:
        raise  # says nothing about the network: a smaller example may pass
    except Exception as error:
        # of any class: a forward pass is its author's code, and the tracer meets what it does not expect in many ways
        shape = tuple(example.shape)
        raise Refusal(f"{type(model).__name__} cannot be traced with an input of shape {shape}: {error}") from error


def _outputs(out: object) -> list[Tensor]:
    import torch_pruning as tp

    # x * 1 makes each output an operation of its own, so that a group that reaches it is recognised
    traced = [o * 1 for o in tp.utils.flatten_as_list(out) if o.requires_grad]
    if not traced:
        raise Refusal("its output does not depend on its parameters through differentiable operations")
    return traced


@contextmanager
def traceable(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and gradients for all parameters while tracing; both restored."""
    # The tracer walks autograd's graph back from the outputs. Frozen layers at the start of a network have no node
    # there: they would be missing from their groups, and keep their widths where their neighbours are cut.
    frozen = [p for p in model.parameters() if not p.requires_grad]
    try:
        with evaluation_mode(model), remembers_nothing(model), torch.enable_grad():
            for p in frozen:
                p.requires_grad_(True)
            yield
    finally:
        for p in frozen:
            p.requires_grad_(False)


@contextmanager
def remembers_nothing(model: nn.Module) -> Iterator[None]:
    """Plain attributes that a forward pass sets are put back or removed: no tracer's values stay in the network.

    (timm's LeViT keeps a table in one when it evaluates, and then could not be copied.)
    """
    before = {m: _plain_attributes(m) for m in model.modules()}
    try:
        yield
    finally:
        for module, attributes in before.items():
            for new in _plain_attributes(module).keys() - attributes.keys():
                del vars(module)[new]
            vars(module).update(attributes)


_OF_EVERY_MODULE = vars(nn.Module()).keys()  # its tables of parameters, buffers, modules and hooks, and its mode


def _plain_attributes(module: nn.Module) -> dict[str, object]:
    """What a module holds besides parameters, buffers, modules and hooks; dictionaries copied."""
    # a dictionary is a cache that the forward pass fills in place: the same object would be full afterwards
    return {k: dict(v) if type(v) is dict else v for k, v in vars(module).items() if k not in _OF_EVERY_MODULE}


@contextmanager
def _forgiving() -> Iterator[None]:
    """The tracer divides by a number of channels that it guesses; where it guesses none (the channel shuffle of a
    ShuffleNetV2), it is to leave that reshape without a map, and `probe` finds what that breaks."""
    from torch_pruning.dependency import index_mapping

    # It looks the function up in its module at each call, and has no other place to step in.
    original = index_mapping.update_reshape_index_mapping

    def update(graph: "tp.DependencyGraph", node: "tp.dependency.Node") -> None:
        try:
            original(graph, node)
        except ZeroDivisionError:
            return

    index_mapping.update_reshape_index_mapping = update
    try:
        yield
    finally:
        index_mapping.update_reshape_index_mapping = original
