"""What is known of a data set without its files agrees with what its files give."""

import pytest
import torch

from classify.data import DataInfo, known_info, open_splits
from classify.data.splits import held_out


@pytest.mark.parametrize(
    ("name", "options", "info"),
    [
        ("cifar10", {}, DataInfo(10, 45_000, (3, 32, 32))),
        ("cifar10", {"val": 0.2}, DataInfo(10, 40_000, (3, 32, 32))),
        ("cifar100", {"val": 1000}, DataInfo(100, 49_000, (3, 32, 32))),
        ("mnist", {}, DataInfo(10, 55_000, (1, 28, 28))),
        ("imagenet", {}, DataInfo(1000, 1_268_355, (3, 224, 224))),
        ("imagenet", {"image_size": 160, "val": 50_000}, DataInfo(1000, 1_231_167, (3, 160, 160))),
        ("digits", {"image_size": 32, "n_train": 70}, DataInfo(10, 70, (3, 32, 32))),
    ],
)
def test_published_sizes_without_what_is_held_out(name, options, info):
    assert known_info(name, options) == info


def test_generated_digits_are_what_was_announced():
    options = {"image_size": 32, "n_train": 20, "n_val": 10, "n_test": 10}
    train, info = open_splits("digits", **options).train, known_info("digits", options)
    assert info == DataInfo(len(train.classes), len(train), train.shape)


@pytest.mark.parametrize("val", [0.011, 0.1, 7])
def test_as_many_are_held_out_as_of_real_labels(val):
    """MNIST's 60,000 training images, shared over ten classes; the sizes of the classes do not matter."""
    kept, _ = held_out(torch.arange(10).repeat_interleave(6000), val, seed=0, split="val")
    assert known_info("mnist", {"val": val}).n_train == len(kept)


def test_only_the_files_of_a_folder_can_tell():
    assert known_info("folder", {"path": "somewhere"}) is None


def test_an_unknown_option_is_refused():
    with pytest.raises(ValueError, match="no option 'vall'"):
        known_info("cifar10", {"vall": 3})
