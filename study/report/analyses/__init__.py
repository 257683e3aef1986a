"""The analyses of a study, each a figure with its table from comparison.json and the run directories.

To add one: a file here, and a line in ANALYSES. An analysis returns None where the study has nothing for it.
"""

from collections.abc import Callable
from dataclasses import replace

from pruning.errors import Refusal
from study.report.analyses import (
    class_differences,
    efficiency,
    errors,
    image_noise,
    kept_channels,
    kernels,
    object_sizes,
    precision_recall,
    rank_correlation,
    ratios,
    recalibration,
    tickets,
    weights,
)
from study.report.artifacts import RunFiles
from study.report.material import Material
from study.report.plots import Exhibit
from training.type_words import did_you_mean

Analysis = Callable[[Material], Exhibit | None]

ANALYSES: dict[str, Analysis] = {
    "quality_against_macs": efficiency.against_macs,
    "quality_against_params": efficiency.against_params,
    "aggressive_ratios": ratios.analyse,
    "tickets": tickets.analyse,
    "after_pruning": recalibration.analyse,
    "rank_correlation": rank_correlation.analyse,
    "precision_recall": precision_recall.analyse,
    "precision_recall_by_class": precision_recall.by_class,
    "object_sizes": object_sizes.analyse,
    "error_kinds": errors.kinds,
    "confusion": errors.confusion,
    "test_images": image_noise.analyse,
    "class_differences": class_differences.analyse,
    "kept_channels": kept_channels.analyse,
    "kernel_densities": kernels.analyse,
    "weight_histograms": weights.analyse,
}


def get_analysis(name: str) -> Analysis:
    """The analysis of this name; ValueError lists the known ones."""
    if name not in ANALYSES:
        raise Refusal(f"unknown analysis {name!r}; {did_you_mean(name, ANALYSES)}choose from {', '.join(ANALYSES)}")
    return ANALYSES[name]


def analyse_all(material: Material) -> list[Exhibit]:
    """Every analysis that the study has something for."""
    each = ((analyse, replace(material, files=RunFiles(material.files.root))) for analyse in ANALYSES.values())
    return [exhibit for analyse, own in each if (exhibit := analyse(own)) is not None]  # files of its own: gaps too
