"""Feature maps of any classifier, found by stride in its traced graph.

The feature of stride s is the last *cut* of that stride: the last 4-D activation of that resolution
through which everything the network computes has to pass. A residual network's are its stages' outputs
(in a ResNet-50 the next block's first 1x1 convolution still has the old resolution, but its shortcut
goes around it); in an inverted-residual network they are the expanded activations in front of the
strided depthwise convolution, the choice of MobileNetV2's SSDLite (arXiv 1801.04381, section 6.2).
Where resolutions go side by side (HRNet) not every stride has a cut. A feature is then the last activation
of its stride that everything of its resolution or finer has to pass, though coarser maps go around it.
"""

import copy
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.errors import Refusal
from pruning.modes import evaluation_mode
from training.norm_layers import ThenChildren

# Not square, and 2 : 3: the output of a fixed-size pooling, or channels-last activations (N, H, W, C),
# can then not pass for a feature map whose height and width are both divided by one power of two.
_PROBE_HEIGHT, _PROBE_WIDTH = 256, 384
_APART = "differs_in_training"  # in a node's meta


@dataclass(frozen=True)
class Cut:
    """One activation (N, channels, H / stride, W / stride) that all paths from input to output pass.

    Not `whole`: all but those that run through coarser activations.
    """

    node: str
    position: int  # in the order of execution
    stride: int
    channels: int
    whole: bool
    in_training: bool  # is everything up to here computed alike in training and in evaluation?


class LayerTracer(fx.Tracer):
    """Keeps every module without children whole, stochastic depth and channel selection included, and normalisations.

    A BatchNorm is one layer also where it holds an activation: its own code is not the same in training.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, (_BatchNorm, ThenChildren)) or not any(True for _ in m.children())
        return whole or super().is_leaf_module(m, module_qualified_name)


def trace_layers(classifier: nn.Module) -> fx.GraphModule:
    """The classifier's graph of layers; the module shares its weights and is in evaluation mode.

    Nodes from the first on that training computes in another way than evaluation (an auxiliary head, a functional
    dropout) are marked. ValueError if the network cannot be traced.
    """
    graphs = {}
    for mode in (True, False):
        classifier.train(mode)
        try:
            graphs[mode] = LayerTracer().trace(classifier)
        except Exception as error:  # tracing runs the model's own code on proxies: anything may be raised
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise Refusal(f"{type(classifier).__name__} cannot be traced by torch.fx: {reason}") from error
    nodes, trained = list(graphs[False].nodes), [node.format_node() for node in graphs[True].nodes]
    alike = sum(
        1 for _ in takewhile(lambda k: nodes[k].format_node() == trained[k], range(min(len(nodes), len(trained))))
    )
    for node in nodes[alike:]:
        node.meta[_APART] = True
    return fx.GraphModule(classifier, graphs[False])


def find_cuts(layers: fx.GraphModule) -> list[Cut]:
    """All cuts of the network in order of execution, found with one forward pass of a small image."""
    values = _propagate(layers)
    order = {node: i for i, node in enumerate(layers.graph.nodes)}
    strides = {node: _stride(value) for node, value in values.items()}
    cuts = []
    furthest: dict[int | None, int] = {}  # by stride: the last position that reads an activation made so far
    for node, value in values.items():
        stride, position = strides[node], order[node]
        around = {s for s, end in furthest.items() if end > position}  # the strides of what goes around this one
        last = max((order[user] for user in node.users if user in values), default=0)
        furthest[stride] = max(furthest.get(stride, 0), last)
        if isinstance(value, Tensor) and stride and all(s is not None and s > stride for s in around):
            alike = not node.meta.get(_APART, False)
            cuts.append(Cut(node.name, position, stride, value.shape[1], whole=not around, in_training=alike))
    return cuts


def select_features(cuts: list[Cut], strides: tuple[int, ...], name: str) -> dict[int, Cut]:
    """The last cut of each wanted stride, of the whole ones if they have all; ValueError names the strides of `name`.

    ValueError as well where what a feature is made of differs in training: a backbone has one graph.
    """
    last = {cut.stride: cut for cut in cuts if cut.whole}
    if not last.keys() >= set(strides):
        last = {cut.stride: cut for cut in cuts}
    missing = [s for s in strides if s not in last]
    if missing:
        raise Refusal(
            f"{name} has no feature map of stride {', '.join(map(str, missing))}; "
            f"it has strides {', '.join(map(str, sorted(last))) or 'none'}"
        )
    apart = [s for s in strides if not last[s].in_training]
    if apart:
        raise Refusal(
            f"{name} computes different graphs in training and evaluation before its feature of stride {apart[0]}; "
            "build it without auxiliary heads and functional dropout to use it as a backbone"
        )
    return {s: last[s] for s in strides}


def cut_off(layers: fx.GraphModule, features: dict[str, Cut]) -> fx.GraphModule:
    """The network that returns {name: activation} and contains only the layers these need."""
    graph = copy.deepcopy(layers.graph)
    nodes = {node.name: node for node in graph.nodes}
    end = max(cut.position for cut in features.values())
    for node in list(graph.nodes)[:end:-1]:
        graph.erase_node(node)
    graph.output({name: nodes[cut.node] for name, cut in features.items()})
    return fx.GraphModule(layers, graph, class_name="Body")


def cut_between(layers: fx.GraphModule, start: Cut, end: Cut) -> fx.GraphModule:
    """The network from activation `start`, its input, to activation `end`; it contains only the layers between."""
    graph = copy.deepcopy(layers.graph)
    nodes = {node.name: node for node in graph.nodes}
    for node in list(graph.nodes)[: end.position : -1]:
        graph.erase_node(node)
    with graph.inserting_after(nodes[start.node]):
        features = graph.placeholder("features")
    nodes[start.node].replace_all_uses_with(features)
    graph.output(nodes[end.node])
    for node in list(graph.nodes)[start.position :: -1]:
        if not node.users:  # all paths pass `start`, so that only parameters and sizes can have any
            graph.erase_node(node)
    inputs = [node.name for node in graph.nodes if node.op == "placeholder"]
    if inputs != [features.name]:
        raise Refusal(f"layers after {start.node} read more than its output: {', '.join(inputs)}")
    return fx.GraphModule(layers, graph, class_name="Stage")


def _propagate(layers: fx.GraphModule) -> dict[fx.Node, Tensor | tuple[()]]:
    """The activations that depend on the image by data flow (not through a shape), by node."""
    recorder = _Recorder(layers)
    image = torch.zeros(1, 3, _PROBE_HEIGHT, _PROBE_WIDTH, device=next(layers.parameters()).device)
    try:
        with evaluation_mode(layers), torch.no_grad():
            recorder.run(image)
    except (AssertionError, RuntimeError) as error:  # a transformer's fixed image size, for one
        raise Refusal(
            f"the network cannot take a {_PROBE_WIDTH} x {_PROBE_HEIGHT} image, so it cannot be a backbone: "
            + str(error).splitlines()[0]
        ) from error
    return recorder.activations


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps the shapes of what is computed from its input."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.activations: dict[fx.Node, Tensor | tuple[()]] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        from_image = n.op == "placeholder" or any(i in self.activations for i in n.all_input_nodes)
        if from_image and n.op != "output" and _has_tensor(value):
            self.activations[n] = value.to("meta") if isinstance(value, Tensor) else ()
        return value


def _has_tensor(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, (tuple, list)) and any(map(_has_tensor, value)))


def _stride(value: object) -> int | None:
    """The stride of a feature map of the probe, None for anything else."""
    if not isinstance(value, Tensor) or value.dim() != 4:
        return None
    height, width = value.shape[2:]
    stride = _PROBE_HEIGHT // height if height else 0
    fits = stride and (height * stride, width * stride) == (_PROBE_HEIGHT, _PROBE_WIDTH)
    return stride if fits else None
