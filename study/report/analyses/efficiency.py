"""Parameter efficiency: quality against what the pruned network costs, over all methods and routes.

Liu et al., ICLR 2019, section 5.
"""

from __future__ import annotations

from study.report.figures import against_cost
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
    cost = topic.cost(key).name
    columns = ("route", "at", cost, topic.primary.name, "standard deviation", "n")
    rows = []
    for route in material.routes:
        summary, value = route.summary(topic.primary.key), route.mean(key)
        found = (summary.mean, summary.std, summary.n) if summary else (None, None, 0)
        rows.append((route.name, route.place, None if value is None else round(value), *found))
    return Exhibit(f"{topic.primary.name} against {cost}", _CAPTION, figure, (), columns, tuple(rows))
