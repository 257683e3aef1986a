"""`pruning.prune`: prune a network that is in no list of architectures, such as a user's own."""

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor, nn

from pruning.cut import Arch, Pruned, Terms
from pruning.cut import prune as prune_architecture
from pruning.graph.members import Group
from pruning.methods import Calibration
from pruning.select import Selection


def prune(
    model: nn.Module,
    groups: Sequence[Group],
    method: str,
    selection: Selection,
    *,
    batch: Tensor,
    calibration: Calibration | None = None,
    arch: Arch | None = None,
    **terms: Unpack[Terms],
) -> Pruned:
    """Prune `model` by the method of this name in `METHODS`; `model` itself is not changed.

    `groups` are what `find_groups` found in it. On `batch` (N, C, H, W) the smaller network must compute what the
    dense one computes whose removed channels are zero. `calibration`: for a method that looks at activations or
    gradients, a function that runs training data through the network that it is given and yields each batch's loss.
    `arch`: the name and options that the plan records, the name of the model's class if None. `terms`: options=, an
    instance of `METHODS[method].options`, seed= and allow_partial=, see `pruning.cut.Terms`.
    Raises ValueError for what cannot be done and RuntimeError when the two networks differ.
    """
    return prune_architecture(
        model,
        Arch(type(model).__name__, {}) if arch is None else arch,
        groups,
        method,
        selection,
        batch=batch,
        calibration=calibration,
        **terms,
    )
