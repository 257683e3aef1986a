"""ImageNet results of Liu et al. (ICLR 2019, tables of sections 4.1 to 4.3), to set beside one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from study.report.claims.pruned_by import PrunedBy
from study.report.routes import RouteResults

DATA = "imagenet"
Accuracy = tuple[float, float]  # top-1 and top-5, percent


def _all(fine_tune: Accuracy, scratch_e: Accuracy, scratch_b: Accuracy) -> Mapping[str, Accuracy]:
    return {"fine_tune": fine_tune, "scratch_e": scratch_e, "scratch_b": scratch_b}


def _scratch(scratch_e: Accuracy, scratch_b: Accuracy) -> Mapping[str, Accuracy]:
    """The study trained no fine-tuned network of its own for these."""
    return {"scratch_e": scratch_e, "scratch_b": scratch_b}


# by name in pruning.targets
TARGETS: Mapping[str, Mapping[str, Accuracy]] = {
    "resnet34-A": _all((72.56, 90.99), (72.77, 91.20), (73.08, 91.29)),
    "resnet34-B": _all((72.29, 90.72), (72.55, 91.07), (72.84, 91.19)),
    "thinet-vgg16-conv": _scratch((68.76, 88.71), (71.72, 90.34)),
    "thinet-vgg16-gap": _scratch((66.85, 87.07), (68.66, 88.13)),
    "thinet-vgg16-tiny": _scratch((57.15, 79.92), (59.93, 82.07)),
    "thinet-resnet50-30": _scratch((70.91, 90.14), (71.57, 90.49)),
    "thinet-resnet50-50": _scratch((73.31, 91.49), (73.90, 91.98)),
    "thinet-resnet50-70": _scratch((74.42, 92.07), (75.14, 92.34)),
    "vgg16-5x": _scratch((68.05, 88.15), (71.00, 89.96)),
    "resnet50-2x": _scratch((71.26, 90.68), (74.58, 92.23)),
    "sss-resnet26": _scratch((72.31, 90.90), (73.41, 91.39)),
    "sss-resnet32": _scratch((73.79, 91.80), (74.67, 92.22)),
    "sss-resnet41": _scratch((75.70, 92.74), (76.17, 92.90)),
}
# by architecture, method and ratio
RATIOS: Mapping[tuple[str, str, float], Mapping[str, Accuracy]] = {
    ("vgg11_slim_imagenet", "slimming", 0.5): _all((68.62, 88.77), (70.00, 89.33), (71.18, 90.08)),
    ("vgg16", "magnitude", 0.3): _all((73.68, 91.53), (72.75, 91.06), (74.02, 91.78)),
    ("vgg16", "magnitude", 0.6): _all((73.63, 91.54), (71.50, 90.43), (73.42, 91.48)),
    ("resnet50", "magnitude", 0.3): _all((76.06, 92.88), (74.77, 92.19), (75.60, 92.75)),
    ("resnet50", "magnitude", 0.6): _all((76.09, 92.91), (73.69, 91.61), (74.90, 92.28)),
}


def published(route: str, how: PrunedBy, data: str) -> Accuracy | None:
    """What the study reports for a route of this name on the data set `data`; None where it reports nothing."""
    if data.lower() != DATA:
        return None
    if how.target:
        return TARGETS.get(how.target, {}).get(route)
    key = (how.arch, how.method, how.ratios[0]) if len(how.ratios) == 1 else ("", "", 0.0)
    return RATIOS.get(key, {}).get(route)


def published_by(routes: Iterable[RouteResults], pruned: Mapping[str, PrunedBy], data: str) -> dict[str, Accuracy]:
    """Route label -> what the study reports for it, for the routes that it reports."""
    found = ((route.label, published(route.name, pruned[route.label], data)) for route in routes)
    return {label: accuracy for label, accuracy in found if accuracy is not None}
