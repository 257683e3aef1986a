"""Hits, false alarms and misses are told apart in the pictures of an evaluation."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from detect.marks import Drawn, Tally, judged, outline

BOX, OFF = (0.0, 0.0, 10.0, 10.0), (0.0, 4.0, 10.0, 14.0)  # their IoU is 60 / 140


def lines(found, truth):
    return [(one.label, one.line) for one in judged(found, truth)]


def test_the_best_takes_the_box_and_a_second_one_is_a_false_alarm():
    assert lines([Drawn(BOX, 1), Drawn(BOX, 1)], [Drawn(BOX, 1)]) == [(1, "solid"), (1, "dashed")]


@pytest.mark.parametrize(("corners", "label"), [(OFF, 1), (BOX, 2)], ids=["place", "class"])
def test_a_wrong_place_or_class_is_a_false_alarm_and_a_miss(corners, label):
    assert lines([Drawn(corners, label)], [Drawn(BOX, 1)]) == [(label, "dashed"), (1, "dotted")]


def test_each_takes_the_box_it_fits_best():
    near = (0.0, 1.0, 10.0, 11.0)
    assert lines([Drawn(near, 1), Drawn(BOX, 1)], [Drawn(BOX, 1), Drawn(near, 1)]) == [(1, "solid")] * 2


def test_a_crowd_is_neither_missed_nor_used_up():
    crowd = Drawn(BOX, 1, ignored=True)
    assert lines([Drawn(BOX, 1), Drawn(BOX, 1)], [crowd]) == [(1, "solid")] * 2
    assert lines([], [crowd]) == []


def test_an_image_is_scored_by_its_boxes_found_and_missed_and_its_false_alarms():
    near = (0.0, 1.0, 10.0, 11.0)
    truth = [Drawn(BOX, 1), Drawn(BOX, 2), Drawn(near, 3, ignored=True)]
    tally = Tally.of(judged([Drawn(BOX, 1), Drawn(BOX, 3), Drawn(OFF, 2), Drawn(BOX, 4)], truth), truth)
    assert tally == Tally(found=1, missed=1, false_alarms=2)  # what lies on the ignored box counts for nothing
    assert tally.f1 == 2 / 5
    assert (Tally(2, 0, 0).f1, Tally(0, 3, 0).f1, Tally(0, 0, 4).f1) == (1, 0, None)


def test_broken_lines_are_broken():
    shares = {}
    for line in ("solid", "dashed", "dotted"):
        image = Image.new("RGB", (60, 60))
        outline(ImageDraw.Draw(image), (5, 5, 50, 50), "#ff0000", line)
        edge = np.asarray(image)[5, 5:50]
        assert (edge.sum(1) > 0).all()  # white or red all along
        shares[line] = (edge == (255, 0, 0)).all(1).mean()
    assert shares["solid"] == 1 > shares["dashed"] > 0.5 > shares["dotted"] > 0.2
