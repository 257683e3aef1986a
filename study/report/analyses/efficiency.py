"""Parameter efficiency: quality against what the pruned network costs, over all methods and routes.

Liu et al., ICLR 2019, section 5.
"""

from __future__ import annotations

from study.report.analyses.material import Material
from study.report.figures import against_cost
from study.report.plots import Exhibit, Value
from study.report.routes import RouteResults

_CAPTION = (
    "Small dots are seeds, large ones their mean, bars one standard deviation. Routes with the same {name} "
    "are set side by side around the true value, which the hover text gives."
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
    figure = against_cost(material.routes, material.colours, topic, key) if key else None
    if key is None or figure is None:
        return None
    cost = topic.cost(key).name
    name = "MACs" if ending == "macs" else "number of parameters"
    columns = ("route", "at", cost, topic.primary.name, "standard deviation", "n")
    rows = tuple(_row(route, key, topic.primary.key) for route in material.routes)
    return Exhibit(f"{topic.primary.name} against {cost}", _CAPTION.format(name=name), figure, (), columns, rows)


def _row(route: RouteResults, key: str, measure: str) -> tuple[Value, ...]:
    summary, cost = route.summary(measure), route.mean(key)
    found = (summary.mean, summary.std, summary.n) if summary else (None, None, 0)
    return (route.name, route.place, None if cost is None else round(cost), *found)
