"""The data set `folder`: its arrangements, its options, and what happens to files that cannot be read."""

import shutil
from pathlib import Path

import pytest
import torch
from support.fabricated_images import encoded, picture, write_images

from classify.data import open_splits

SUBSET = Path(__file__).resolve().parents[4] / "shared" / "data" / "cifar10_jpg_subset.zip"  # beside the repository


@pytest.fixture
def flat(tmp_path):
    """Cats are red 0 to 9, dogs 100 to 119."""
    write_images(tmp_path / "pets" / "cat", 10)
    write_images(tmp_path / "pets" / "dog", 20, first=100)
    return tmp_path


@pytest.fixture
def arranged(tmp_path):
    """The same with a test split on disk: cats 50 to 54, dogs 150 to 154."""
    write_images(tmp_path / "pets" / "train" / "cat", 10)
    write_images(tmp_path / "pets" / "train" / "dog", 20, first=100)
    write_images(tmp_path / "pets" / "test" / "cat", 5, first=50)
    write_images(tmp_path / "pets" / "test" / "dog", 5, first=150)
    return tmp_path


def opened(root, **options):
    return open_splits("folder", root=root, **{"path": "pets", "image_size": 40} | options)


def reds(images):
    return images.take(torch.arange(len(images)))[:, 0, 0, 0].tolist()


def test_classes_alone_give_all_three_splits(flat):
    splits = opened(flat, val=6, test=3)
    assert splits.train.classes == ("cat", "dog")
    assert splits.test.labels.tolist() == [0, 1, 1]
    assert splits.val.labels.tolist() == [0, 0, 1, 1, 1, 1]
    found = sorted(reds(splits.train) + reds(splits.val) + reds(splits.test))
    assert found == [*range(10), *range(100, 120)]
    for split in (splits.train, splits.val, splits.test):
        assert [red >= 100 for red in reds(split)] == [label == 1 for label in split.labels.tolist()]
    assert splits.notes == ()


def test_shares_if_nothing_is_said(flat):
    splits = opened(flat)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [22, 2, 6]


def test_a_split_on_disk_is_taken_whole(arranged):
    splits = opened(arranged, val=3)
    assert reds(splits.test) == [50, 51, 52, 53, 54, 150, 151, 152, 153, 154]
    assert splits.val.labels.tolist() == [0, 1, 1]
    assert len(splits.train) == 27
    with pytest.raises(ValueError, match=r"test=0\.2 is to be held out, but there is a test on disk"):
        opened(arranged, test=0.2)


def test_an_outer_folder_and_hidden_files_do_not_count(arranged):
    shutil.move(arranged / "pets", arranged / "moved")
    (arranged / "pets" / "around" / "everything").parent.mkdir(parents=True)
    shutil.move(arranged / "moved", arranged / "pets" / "around" / "everything")
    (arranged / "pets" / ".DS_Store").write_bytes(b"")
    (arranged / "pets" / "__MACOSX").mkdir()
    splits = opened(arranged, val=3)
    assert len(splits.test) == 10
    assert splits.notes == ()


def test_per_class_limits_training_and_validation_only(arranged):
    splits = opened(arranged, val=2, per_class=5)
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [8, 2, 10]
    assert splits.train.labels.bincount().tolist() == [4, 4]
    with pytest.raises(ValueError, match="per_class=0 must be at least 1"):
        opened(arranged, per_class=0)


def test_data_seed_decides_the_splits(flat):
    prints = [opened(flat, seed=seed).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("in_memory", [True, False])
def test_mean_and_std_are_those_of_the_training_images(flat, in_memory):
    splits = opened(flat, in_memory=in_memory)
    expected = torch.tensor(reds(splits.train)).double() / 255  # red is constant in each image
    assert splits.mean[0] == pytest.approx(float(expected.mean()))
    assert splits.std[0] == pytest.approx(float(expected.std(correction=0)))


def test_in_memory_and_on_disk_are_the_same_images(flat):
    memory, disk = opened(flat, in_memory=True), opened(flat, in_memory=False)
    everything = torch.arange(len(disk.train))
    assert type(memory.train) is not type(disk.train)
    assert torch.equal(memory.train.take(everything), disk.train.take(everything))
    assert torch.equal(memory.train.labels, disk.train.labels)
    assert memory.mean == disk.mean


def test_auto_goes_by_the_size_of_all_images(flat, monkeypatch):
    size = 30 * 3 * 40 * 40
    monkeypatch.setattr("classify.data.folder._MEMORY", size)
    assert type(opened(flat).train).__name__ == "ImageSet"
    monkeypatch.setattr("classify.data.folder._MEMORY", size - 1)
    assert type(opened(flat).train).__name__ == "StreamedImages"


def damage(root):
    """One file is cut short, one is text, one is a link to nothing."""
    jpeg = encoded(3, "JPEG", width=80, height=80)
    (root / "pets" / "cat" / "cut.jpg").write_bytes(jpeg[:-100])
    (root / "pets" / "cat" / "text.png").write_bytes(b"no picture")
    (root / "pets" / "dog" / "gone.png").symlink_to(root / "nowhere.png")


@pytest.mark.parametrize("in_memory", [True, False])
def test_damaged_and_missing_images_are_named_and_counted(flat, in_memory):
    damage(flat)
    with pytest.raises(ValueError, match="pets: 3 of 33 images cannot be read") as caught:
        opened(flat, in_memory=in_memory, val=0.1, test=0.1)
    message = str(caught.value)
    for part in ("cat/cut.jpg (", "cat/text.png (no image of a known format)", "dog/gone.png (missing)"):
        assert part in message
    assert message.endswith("set skip_broken: true to go on without them")


@pytest.mark.parametrize("in_memory", [True, False])
def test_skipping_says_how_many_were_left_out(flat, in_memory, caplog):
    damage(flat)
    splits = opened(flat, in_memory=in_memory, skip_broken=True)
    assert sum(len(split) for split in (splits.train, splits.val, splits.test)) == 30
    (note,) = splits.notes
    assert "3 of 33 images cannot be read" in note
    assert note.endswith("they are left out")
    assert "3 of 33 images cannot be read" in caplog.text
    found = sorted(reds(splits.train) + reds(splits.val) + reds(splits.test))
    assert found == [*range(10), *range(100, 120)]


def test_skipping_a_whole_class_is_refused(flat):
    for file in (flat / "pets" / "cat").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no image of class cat in train can be read"):
        opened(flat, skip_broken=True)


def test_skipping_a_whole_split_is_refused(arranged):
    for file in (arranged / "pets" / "test").rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no image of test can be read"):
        opened(arranged, skip_broken=True)


def test_a_header_check_finds_what_is_no_image_but_not_what_is_cut_short(flat):
    damage(flat)
    with pytest.raises(ValueError, match="2 of 33 images cannot be read"):
        opened(flat, in_memory=False, check="header")


def test_other_files_are_noted(flat, caplog):
    (flat / "pets" / "cat" / "notes.txt").write_text("not an image")
    (note,) = opened(flat).notes
    assert note.endswith("1 files are no images by their suffix, such as cat/notes.txt; they are not read")
    assert "notes.txt" in caplog.text


def test_one_class_is_refused(flat):
    shutil.rmtree(flat / "pets" / "dog")
    with pytest.raises(ValueError, match="one class only, cat"):
        opened(flat)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pets: shutil.rmtree(pets / "test" / "dog"), r"in train but not in test: 1 class \(dog\)"),
        (lambda pets: shutil.rmtree(pets / "train" / "dog"), r"in test but not in train: 1 class \(dog\)"),
        (lambda pets: shutil.rmtree(pets / "train"), "has test and no train"),
        (lambda pets: write_images(pets / "bird", 1), "has folders of classes beside test, train"),
        (lambda pets: picture(1).save(pets / "train" / "0.png"), r"train/0\.png is neither class/image nor"),
        (lambda pets: (pets / "val").mkdir(), "val: no image in it"),
    ],
)
def test_arrangements_that_are_no_data_set(arranged, change, message):
    change(arranged / "pets")
    with pytest.raises(ValueError, match=message):
        opened(arranged)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "needs the option path"),
        ({"path": "nowhere"}, "nowhere: no such folder or zip"),
        ({"path": "pets/cat/000.png"}, "neither a folder nor a zip"),
        ({"resize": 30}, "resize=30 must be at least image_size=40"),
        ({"image_size": 0}, "at least 1 pixel"),
        ({"in_memory": "maybe"}, "option 'in_memory' of data set 'folder'"),
        ({"val": True}, "option 'val' of data set 'folder'"),
        ({"val": 0}, "val=0 must be a fraction"),
    ],
)
def test_bad_options(flat, options, message):
    with pytest.raises(ValueError, match=message):
        opened(flat, **options)


@pytest.mark.skipif(not SUBSET.is_file(), reason=f"no photographs at {SUBSET}")
def test_a_zip_of_real_photographs():
    options = {"path": SUBSET.name, "image_size": 32, "per_class": 20, "val": 50}
    splits = open_splits("folder", root=SUBSET.parent, in_memory=False, check="header", **options)
    assert splits.train.classes[:3] == ("airplane", "automobile", "bird")
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [150, 50, 5000]
    assert splits.train.labels.bincount().tolist() == [15] * 10
    assert splits.mean == pytest.approx((0.49, 0.48, 0.45), abs=0.05)  # CIFAR-10 has .491, .482, .447
