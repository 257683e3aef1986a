"""Pipelines can be told apart: by colour whatever one's eyes, on a light and on a dark page, and without colours."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import study.report
from study.plan.named import CLASSIFIER_PIPELINES, OTHER_LOOKS, PIPELINES
from study.report.analyses import image_noise, recalibration

# Machado, Oliveira, Fernandes, A Physiologically-based Model for Simulation of Color Vision Deficiency (2009), severity
# 1.0, for linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "no long cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no medium cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no short cones": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
# sRGB to CIE XYZ, D65 (IEC 61966-2-1)
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
FAR, CONTRAST = 15, 3  # units of CIELAB; WCAG 2.2, 1.4.11 for graphics


def linear(colour):
    value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    t = XYZ @ rgb / XYZ.sum(1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(a, b, vision):
    seen = [lab(np.clip(np.array(VISIONS[vision]) @ linear(colour), 0, 1)) for colour in (a, b)]
    return np.linalg.norm(seen[0] - seen[1])


def contrast(a, b):
    low, high = sorted(float(XYZ[1] @ linear(colour)) + 0.05 for colour in (a, b))
    return high / low


def papers():
    return re.findall(r"--paper: (#[0-9a-f]{6})", (Path(study.report.__file__).parent / "report.css").read_text())


def test_the_measures_are_those_of_the_standards():
    assert lab(np.ones(3)) == pytest.approx([100, 0, 0], abs=0.01)
    assert lab(linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for vision in VISIONS:  # grey is grey to all
        assert distance("#777777", "#777777", vision) == 0
        assert lab(np.array(VISIONS[vision]) @ linear("#777777"))[1:] == pytest.approx([0, 0], abs=0.05)


@pytest.mark.parametrize("table", [PIPELINES, CLASSIFIER_PIPELINES], ids=["detectors", "classifiers"])
def test_pipelines_differ_in_colour_for_everyone_and_in_marker(table):
    looks = [*(pipeline.look for pipeline in table.values()), *OTHER_LOOKS]
    for a, b in combinations(looks, 2):
        assert a.marker != b.marker and a.sign != b.sign
        assert min(distance(a.colour, b.colour, vision) for vision in VISIONS) > FAR, (a, b)


def test_colours_stand_out_from_the_page():
    assert len(papers()) == 2  # light and dark
    for pipeline in [*PIPELINES.values(), *CLASSIFIER_PIPELINES.values()]:
        assert min(contrast(pipeline.look.colour, paper) for paper in papers()) > CONTRAST, pipeline
    for look in OTHER_LOOKS:
        assert min(contrast(look.colour, paper) for paper in papers()) > CONTRAST, look


@pytest.mark.parametrize(
    "colours", [recalibration.COLOURS, [colour for _, colour in image_noise.PARTS]], ids=["pruned", "noise"]
)
def test_what_is_no_pipeline_differs_too(colours):
    for a, b in combinations(colours, 2):
        assert min(distance(a, b, vision) for vision in VISIONS) > FAR, (a, b)
    assert min(contrast(colour, paper) for colour in colours for paper in papers()) > CONTRAST
