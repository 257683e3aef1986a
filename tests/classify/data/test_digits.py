"""The splits share neither a scan nor a pixel of a photograph, and the images are what their records say."""

from itertools import combinations

import numpy as np
import pytest
import torch

from classify.data import DATASETS, dataset_options, open_splits
from classify.data.digits import (
    contrasting_colour,
    digit_images,
    digit_patch,
    make_digits,
    paste_digit,
    scan_indices,
    scan_labels,
    scans,
)
from classify.data.images import SPLITS, channel_mean_std
from classify.data.photos import LARGEST_CROP, PhotoCrop, draw_crop, photo_regions, render_crop


def region_pixels(split):
    """Photograph -> boolean (427, 640): the pixels of `split`."""
    masks = {}
    for photo, top, left, height, width in photo_regions(split):
        mask = masks.setdefault(photo, np.zeros((427, 640), dtype=bool))
        mask[top : top + height, left : left + width] = True
    return masks


def test_every_scan_belongs_to_exactly_one_split():
    together = np.concatenate([scan_indices(split) for split in SPLITS])
    assert sorted(together.tolist()) == list(range(1797))
    shares = [len(scan_indices(split)) / 1797 for split in SPLITS]
    assert shares == pytest.approx([0.60, 0.15, 0.25], abs=0.005)


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_is_in_every_split_in_proportion(split):
    in_split = np.bincount(scan_labels()[scan_indices(split)], minlength=10)
    overall = np.bincount(scan_labels(), minlength=10)
    share = len(scan_indices(split)) / 1797
    assert np.abs(in_split - overall * share).max() <= 2


def test_the_split_of_scans_never_changes():
    # Results on disk were measured with this split: changing it makes them incomparable.
    assert scan_indices("test")[:8].tolist() == [1, 11, 17, 21, 22, 26, 27, 33]
    assert [len(scan_indices(split)) for split in SPLITS] == [1078, 269, 450]


@pytest.mark.parametrize(("first", "second"), combinations(SPLITS, 2))
def test_photograph_regions_are_disjoint(first, second):
    masks, others = region_pixels(first), region_pixels(second)
    assert masks.keys() == others.keys() == {"china.jpg", "flower.jpg"}
    for photo, mask in masks.items():
        assert mask.any()
        assert not (mask & others[photo]).any()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("image_size", [32, 128, 300])
def test_crops_lie_inside_their_splits_regions(split, image_size):
    allowed = region_pixels(split)
    rng = np.random.default_rng(0)
    crops = [draw_crop(split, image_size, rng) for _ in range(300)]
    for crop in crops:
        assert 0 <= crop.top <= 427 - crop.side
        assert 0 <= crop.left <= 640 - crop.side
        assert allowed[crop.photo][crop.top : crop.top + crop.side, crop.left : crop.left + crop.side].all()
        assert crop.side <= LARGEST_CROP
    assert {crop.photo for crop in crops} == set(allowed)


def test_a_crop_at_its_own_size_is_the_photograph_itself_mirrored_when_flipped():
    crop = PhotoCrop("china.jpg", top=100, left=50, side=40, flipped=False)
    mirrored = PhotoCrop("china.jpg", top=100, left=50, side=40, flipped=True)
    inner = PhotoCrop("china.jpg", top=110, left=60, side=20, flipped=False)
    assert np.array_equal(render_crop(crop, 40)[10:30, 10:30], render_crop(inner, 20))
    assert np.array_equal(render_crop(crop, 40)[:, ::-1], render_crop(mirrored, 40))


@pytest.mark.parametrize("split", SPLITS)
def test_generated_images_come_from_their_recorded_scan_and_crop(split):
    allowed, own_scans = region_pixels(split), set(scan_indices(split).tolist())
    for record, image in digit_images(split, n_images=40, image_size=48, seed=3):
        assert record.scan in own_scans
        assert record.label == scan_labels()[record.scan]
        crop = record.crop
        assert allowed[crop.photo][crop.top : crop.top + crop.side, crop.left : crop.left + crop.side].all()
        # Outside the digit's square the image is the recorded crop; inside, the digit changed it.
        changed = (image != render_crop(crop, 48)).any(axis=2)
        square = np.zeros((48, 48), dtype=bool)
        square[record.top : record.top + record.side, record.left : record.left + record.side] = True
        assert not changed[~square].any()
        assert changed[square].sum() > 20


def test_equal_arguments_give_equal_bytes_and_each_argument_changes_them():
    first = make_digits("train", n_images=20, image_size=32, seed=0)
    again = make_digits("train", n_images=20, image_size=32, seed=0)
    longer = make_digits("train", n_images=30, image_size=32, seed=0)
    other_seed = make_digits("train", n_images=20, image_size=32, seed=1)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images, longer.images[:20])
    assert not any(torch.equal(a, b) for a, b in zip(first.images, other_seed.images, strict=True))


def test_splits_draw_different_random_numbers():
    placements = [
        [(record.top, record.left, record.side) for record, _ in digit_images(s, n_images=9, image_size=64, seed=0)]
        for s in SPLITS
    ]
    assert placements[0] != placements[1] != placements[2] != placements[0]


def test_classes_are_balanced():
    labels = make_digits("val", n_images=25, image_size=32, seed=0).labels
    assert torch.bincount(labels).tolist() == [3] * 5 + [2] * 5


def test_patch_opacity_by_hand():
    # A uniform interior stays uniform under interpolation: opacity (ink - level) / softness + 0.5.
    scan = np.zeros((10, 10), dtype=np.float32)
    scan[1:9, 1:9] = 0.5
    alpha = digit_patch(scan, 32, level=0.4, softness=0.5)
    assert alpha.shape == (40, 40)
    assert alpha[20, 20] == pytest.approx(0.7)
    assert alpha[0, 0] == 0


def test_paper_stays_transparent_or_is_refused():
    with pytest.raises(ValueError, match=r"softness=0.7 is outside 0..0.6"):
        digit_patch(scans()[0], 32, level=0.3, softness=0.7)


def test_paste_changes_only_where_there_is_ink_and_not_its_argument():
    grey = np.full((6, 6, 3), 128, dtype=np.uint8)
    alpha = np.zeros((3, 3), dtype=np.float32)
    alpha[1, 2] = 1
    pasted = paste_digit(grey, alpha, top=2, left=1, rng=np.random.default_rng(0))
    assert np.argwhere((pasted != grey).any(axis=2)).tolist() == [[3, 3]]
    assert (grey == 128).all()


@pytest.mark.parametrize(("top", "left"), [(-1, 0), (0, 4), (4, 0)])
def test_paste_outside_the_image_is_refused(top, left):
    grey = np.zeros((6, 6, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="leaves the"):
        paste_digit(grey, np.ones((3, 3), dtype=np.float32), top, left, np.random.default_rng(0))


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_ink_is_visible_on_any_grey_and_goes_both_ways_where_it_can(grey):
    rng = np.random.default_rng(0)
    covered, alpha = np.full((4, 4, 3), grey, dtype=np.uint8), np.ones((4, 4), dtype=np.float32)
    differences = [contrasting_colour(covered, alpha, rng) @ [0.299, 0.587, 0.114] - grey for _ in range(200)]
    # Clipping a strong tint may give back some of the 60 levels of contrast that are asked for at least.
    assert min(abs(difference) for difference in differences) > 40
    assert {bool(difference > 0) for difference in differences} == {
        0: {True},
        128: {True, False},
        255: {False},
    }[grey]


def test_open_splits_returns_splits_of_the_asked_sizes():
    splits = open_splits("digits", image_size=32, n_train=20, n_val=10, n_test=12)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [20, 10, 12]
    assert splits.test.shape == (3, 32, 32)
    assert splits.test.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert torch.equal(splits.test.images, make_digits("test", n_images=12, image_size=32, seed=0).images)
    assert (splits.mean, splits.std) == channel_mean_std(splits.train.images)


def test_options_of_digits_and_their_defaults():
    assert dataset_options("digits") == {"image_size": 64, "n_train": 4000, "n_val": 500, "n_test": 1000}


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'dev'; choose from train, val, test"):
        make_digits("dev", n_images=1, image_size=32, seed=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("emnist", {}, f"unknown data set 'emnist'; choose from {', '.join(DATASETS)}"),
        ("digits", {"size": 3}, "no option 'size'; choose from image_size, n_train, n_val, n_test"),
        ("digits", {"n_val": "few"}, "option 'n_val' of data set 'digits': 'few' does not fit; expected: whole number"),
        ("digits", {"n_train": 1, "n_val": 0}, "n_images must be at least 1, got 0"),
        ("digits", {"image_size": 8}, "at least 16 pixels"),
        ("digits", {"seed": -1}, "seed must be at least 0, got -1"),
        ("digits", {"workers": -1}, "workers=-1 must be at least 0"),
    ],
)
def test_bad_requests_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        open_splits(name, **options)
