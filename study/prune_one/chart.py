"""A picture of a pruned network: what each layer has left of the dense network's."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from pruning.plan import PruningPlan

_INCHES_PER_LAYER = 0.24
_NARROWEST, _WIDEST = 8.0, 48.0  # inches
_HEIGHT = 4.6  # inches, of one panel
_DOTS_PER_INCH = 110
_MOST_LABELS = 190  # on the widest picture
_DENSE, _KEPT = "#c9d3de", "#1f5fa8"


@dataclass(frozen=True)
class Panel:
    """Bars of a quantity by layer: dense and kept."""

    quantity: str
    dense: Mapping[str, float]
    kept: Mapping[str, float]


def panels(dense: nn.Module, small: nn.Module, plan: PruningPlan, masks: Mapping[str, Tensor]) -> list[Panel]:
    """What to show: kept weights for masks, else output channels, and inputs where a layer selects some.

    Layers are the convolutions, and linear layers that were narrowed. A layer that is gone keeps nothing.
    """
    if masks:
        shares = {name.removesuffix(".weight"): 100 * float(mask.double().mean()) for name, mask in masks.items()}
        return [Panel("kept weights (%)", dict.fromkeys(shares, 100.0), shares)]
    before, after = _widths(dense, 0), _widths(small, 0)
    convs = {name for name, m in dense.named_modules() if isinstance(m, nn.Conv2d)}
    shown = {n: width for n, width in before.items() if n in convs or after.get(n) != width}
    found = [Panel("output channels", shown, {name: after.get(name, 0) for name in shown})]
    if plan.select:
        inputs = _widths(dense, 1)
        dense_inputs = {name: inputs[name] for name in before if name in plan.select}
        kept = {name: len(plan.select[name]) for name in dense_inputs}
        found.append(Panel("input channels that a layer reads", dense_inputs, kept))
    return found


def draw_channels(title: str, shown: list[Panel]) -> bytes:
    """The panels one below the other, as a PNG."""
    longest = max(len(panel.dense) for panel in shown)
    width = min(max(_NARROWEST, _INCHES_PER_LAYER * longest + 1), _WIDEST)
    figure = Figure(figsize=(width, _HEIGHT * len(shown)), dpi=_DOTS_PER_INCH, layout="constrained")
    for axes, panel in zip(figure.subplots(len(shown), squeeze=False)[:, 0], shown, strict=True):
        _draw(axes, panel)
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(axes: Axes, panel: Panel) -> None:
    names = list(panel.dense)
    places = range(len(names))
    axes.bar(places, list(panel.dense.values()), width=0.85, color=_DENSE, label="dense")
    axes.bar(places, [panel.kept[name] for name in names], width=0.55, color=_KEPT, label="kept")
    step = -(-len(names) // _MOST_LABELS)  # rounded up
    axes.set_xticks(places[::step], names[::step], rotation=90, fontsize=8)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_ylabel(panel.quantity)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderaxespad=0)


def _widths(model: nn.Module, dim: int) -> dict[str, int]:
    """Output (0) or input (1) channels of each convolution and linear layer."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    return {name: int(layer.weight.shape[dim]) for name, layer in layers.items()}
