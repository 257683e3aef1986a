"""ImageNet's layout with three classes of a few small images."""

import shutil

import pytest
from support.fabricated_images import write_images

from classify.data import open_splits

WNIDS = ("n01440764", "n01443537", "n02102040")


@pytest.fixture
def imagenet(tmp_path):
    for i, wnid in enumerate(reversed(WNIDS)):
        write_images(tmp_path / "imagenet" / "train" / wnid, 10, first=10 * i)
        write_images(tmp_path / "imagenet" / "val" / wnid, 4, first=100)
    for file in (tmp_path / "imagenet").rglob("*.png"):
        file.rename(file.with_suffix(".JPEG"))
    return tmp_path


def test_published_validation_images_are_the_test_split(imagenet):
    splits = open_splits("imagenet", root=imagenet, val=0.2, workers=3)
    assert splits.train.classes == WNIDS
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [24, 6, 12]
    assert splits.val.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert all(file.name.startswith("val/") for file in splits.test.labelled.files)
    assert all(file.name.startswith("train/") for file in splits.val.labelled.files)
    assert splits.train.shape == (3, 224, 224)
    assert (splits.test.crop.resize, splits.train.workers) == (256, 3)
    assert (splits.mean, splits.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("val/n01443537", r"in train but not in val: 1 class \(n01443537\)"),
        ("train/n01443537", r"in val but not in train: 1 class \(n01443537\)"),
        ("val", "has train; ImageNet is train/<wnid> and val/<wnid>"),
        ("train", "has val and no train"),
        ("", "imagenet: no such folder or zip"),
    ],
)
def test_missing_parts_are_named(imagenet, gone, message):
    shutil.rmtree(imagenet / "imagenet" / gone)
    with pytest.raises(ValueError, match=message):
        open_splits("imagenet", root=imagenet, val=0.2)


def test_files_that_are_no_images_are_found_before_training(imagenet):
    for i in range(5):
        (imagenet / "imagenet" / "train" / WNIDS[0] / f"00{i}.JPEG").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"5 of 42 images cannot be read: train/n01440764/000\.JPEG .*, \.\.\.; repair"
    ):
        open_splits("imagenet", root=imagenet, val=0.2)
    splits = open_splits("imagenet", root=imagenet, val=0.2, skip_broken=True)
    assert len(splits.train) + len(splits.val) == 25
    assert "5 of 42 images" in splits.notes[0]
