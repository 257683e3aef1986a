"""Images of rare classes shown more often, and colours changed at random: off by default, and resumable."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from support.coco_layout import coco_box, encoded, picture, write_coco

from detect.data.loader import colour_augmentations, train_loader
from detect.data.stream import TrainStream
from detect.detector_config import make_config
from detect.settings import DetectorSettings, TrainSettings

SIZE = 10


def stream(seed=0, threshold=0.4, **arguments):
    """Ten records: the last one alone has class 1; images 0 to 4 are wide."""
    records = [
        {"width": 40, "height": 20 if k < 5 else 60, "annotations": [{"category_id": int(k == SIZE - 1)}]}
        for k in range(SIZE)
    ]
    return TrainStream(records, None, seed=seed, repeat_threshold=threshold, **arguments)


def test_a_class_of_a_tenth_of_the_images_is_shown_twice_as_often_at_a_threshold_of_four_tenths():
    one = stream()  # the factor is sqrt(0.4 / 0.1) = 2
    epochs = [[one.index(11 * e + k) for k in range(11)] for e in range(20)]
    assert all(Counter(epoch) == Counter([*range(SIZE), SIZE - 1]) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert len(stream(threshold=0.1)) == SIZE == len(stream(threshold=None))


def test_a_fraction_is_met_on_average():
    one = stream(threshold=0.625)  # the factor is 2.5
    seen = Counter(one.index(position) for position in range(4000))
    assert seen[SIZE - 1] / seen[0] == pytest.approx(2.5, rel=0.05)
    assert {len(one._epoch_order(epoch)) for epoch in range(20)} == {11, 12}


@pytest.mark.parametrize("grouped", [{}, {"landscape": np.arange(SIZE) < 5, "batch_size": 2}])
def test_a_place_says_the_record_whoever_asks_in_whatever_order(grouped):
    forward, backward = stream(threshold=0.625, **grouped), stream(threshold=0.625, **grouped)
    expected = [forward.index(position) for position in range(100)]
    assert [backward.index(position) for position in reversed(range(100))] == expected[::-1]
    assert [stream(seed=1, threshold=0.625, **grouped).index(position) for position in range(100)] != expected
    if grouped:
        wide = np.array(expected) < 5
        assert (wide[::2] == wide[1::2]).mean() > 0.75  # what is left of both at an epoch's end is one batch


@pytest.fixture
def dataset(tmp_path):
    boxes = [coco_box(k, k, [4, 4, 8, 8]) for k in (1, 2)]
    return write_coco(tmp_path / "x", {f"{k}.png": encoded(picture(k), "PNG") for k in (1, 2)}, boxes)


def shown(dataset, start=0, **arguments):
    cfg = make_config(DetectorSettings(image_size=20, max_image_size=40), num_classes=2)
    batches = train_loader(dataset, cfg, batch_size=1, seed=0, start_iteration=start, **arguments)
    return [batch[0] for batch in itertools.islice(batches, 6)]


def test_colours_change_each_time_and_boxes_do_not(dataset):
    plain, coloured = shown(dataset), shown(dataset, colour_jitter=0.5)
    for a, b in zip(plain, coloured, strict=True):
        assert a["image_id"] == b["image_id"] and b["image"].dtype == torch.uint8
        assert a["image"].shape == b["image"].shape and not torch.equal(a["image"], b["image"])
        assert torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
    first = [record["image"] for record in coloured if record["image_id"] == coloured[0]["image_id"]]
    assert not torch.equal(first[0], first[1])
    again = shown(dataset, start=3, colour_jitter=0.5)[:3]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(again, coloured[3:], strict=True))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(shown(dataset), plain, strict=True))


def test_both_are_off_by_default():
    settings = TrainSettings(iterations=1, batch_size=1, lr=0.1)
    assert settings.colour_jitter is None and settings.repeat_threshold is None
    assert colour_augmentations(None) == []
