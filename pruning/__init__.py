"""What a pruned network is and how each method chooses it.

Half of the filters of a network of your own, chosen by their L1 norms:

    import torch, torchvision, pruning

    model, image = torchvision.models.resnet50(weights="DEFAULT"), torch.randn(1, 3, 224, 224)
    groups = pruning.find_groups(model, image)
    pruned = pruning.prune(model, groups, "l1_filter", pruning.Selection(ratio=0.5), batch=image)
    print(pruning.count_macs(model, image), pruning.count_macs(pruned.model, image))

`pruned.model` is an ordinary network to train on. Plan and weights are what to keep of it, and make it again:

    from pathlib import Path

    Path("plan.json").write_text(pruned.plan.to_json())
    torch.save(pruned.model.state_dict(), "weights.pt")

    dense, plan = torchvision.models.resnet50(), pruning.PruningPlan.load(Path("plan.json"))
    small = pruning.apply(dense, plan, pruning.find_groups(dense, image))
    small.load_state_dict(torch.load("weights.pt", weights_only=True))

`METHODS` names the methods. One that looks at activations or gradients takes a function that yields each batch's loss,
too:

    def calibration(network):
        for images, labels in batches:
            yield torch.nn.functional.cross_entropy(network(images), labels)

    pruned = pruning.prune(model, groups, "thinet", pruning.Selection(0.5), batch=image, calibration=calibration)

PyTorch is imported when one of these names is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from prune_transfer import __version__ as __version__

if TYPE_CHECKING:
    from pruning.cost import count_macs, count_params
    from pruning.errors import Failure, Refusal
    from pruning.face import prune
    from pruning.graph.groups import find_groups
    from pruning.masks import Masks
    from pruning.methods import METHODS
    from pruning.plan import PruningPlan
    from pruning.select import Selection
    from pruning.surgery import apply

__all__ = [
    "METHODS",
    "Failure",
    "Masks",
    "PruningPlan",
    "Refusal",
    "Selection",
    "apply",
    "count_macs",
    "count_params",
    "find_groups",
    "prune",
]
_MODULES = {
    "METHODS": "methods",
    "Failure": "errors",
    "Masks": "masks",
    "PruningPlan": "plan",
    "Refusal": "errors",
    "Selection": "select",
    "apply": "surgery",
    "count_macs": "cost",
    "count_params": "cost",
    "find_groups": "graph.groups",
    "prune": "face",
}


def __getattr__(name: str) -> object:
    """The names above, imported late (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"pruning.{_MODULES[name]}"), name)
