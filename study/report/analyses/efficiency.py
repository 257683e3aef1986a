"""Parameter efficiency: quality against what the pruned network costs, over all methods and routes.

Liu et al., ICLR 2019, section 5.
"""

from __future__ import annotations

from study.report.figures import against_cost, cost_table
from study.report.material import Material
from study.report.plots import Exhibit

_CAPTION = (
    "Small dots are seeds, large ones their mean, bars one standard deviation. Routes of equal cost stand above one "
    "another."
)


def against_macs(material: Material) -> Exhibit | None:
    """Quality against the multiply-adds of one image."""
    return _against(material, "macs")


def against_params(material: Material) -> Exhibit | None:
    """Quality against the number of parameters; None for detection, whose networks are compared by MACs."""
    return _against(material, "params")


def _against(material: Material, ending: str) -> Exhibit | None:
    topic = material.topic
    key = next((key for key in topic.forward_costs if key.endswith(ending)), None)
    figure = against_cost(material, key) if key else None
    if key is None or figure is None:
        return None
    title = f"{topic.primary.name} against {topic.cost(key).name}"
    return Exhibit(title, _CAPTION, figure, (), *cost_table(material, key))
