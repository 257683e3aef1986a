"""VOC's XML in the folders that people have, and broken files left out where that is asked for."""

import pytest
import yaml
from pydantic import ValidationError
from support.coco_layout import coco_box, encoded, picture, write_coco
from support.voc_layout import voc_object, write_annotation, write_voc

from detect.data import VocDataset, check_dataset
from detect.data.open import detection_data, open_detection
from detect.data.problems import by_kind
from detect.settings import DetectorData
from study.commands.check_data import add_arguments, main
from study.plan.checks import check_detection_data
from study.run.launch import launch, make_parser
from study.stages.stage import Stage

CAT = [voc_object("cat", (1, 1, 9, 9))]
DOG = [voc_object("dog", (1, 1, 9, 9))]


def moved(tmp_path, annotations, images, names="abcde", suffix=".jpg"):
    """The images and annotations in other folders, without lists."""
    voc = write_voc(tmp_path / "voc", dict.fromkeys(names, CAT))
    root = tmp_path / "mine"
    for source, target in ((voc / "Annotations", root / annotations), (voc / "JPEGImages", root / images)):
        target.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            file.rename(target / (file.name if file.suffix == ".xml" else file.stem + suffix))
    return root


def data_of(root, **voc):
    return detection_data(DetectorData.model_validate({"voc": {"root": root, **voc}}))


def opened(root, **voc):
    data = data_of(root, **voc)
    return [open_detection(data, side, root / "data").split for side in ("train", "test")]


def ids(split):
    return [image.id for image in split.images]


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".png"])
@pytest.mark.parametrize(
    ("annotations", "images"),
    [(".", "."), ("annotations", "images"), ("Annotations", "JPEGImages"), ("xmls", "."), (".", "Images")],
)
def test_files_are_found_where_people_have_them(tmp_path, annotations, images, suffix):
    root = moved(tmp_path, annotations, images, suffix=suffix)
    dataset = VocDataset(root, "all")
    check_dataset(dataset)
    assert ids(dataset.split) == list("abcde")
    assert {image.file for image in dataset.split.images} == {root / images / f"{name}{suffix}" for name in "abcde"}


def test_xml_in_capitals_is_xml(tmp_path):
    root = moved(tmp_path, ".", ".", names="ab")
    (root / "a.xml").rename(root / "a.XML")
    assert ids(check_dataset(VocDataset(root, "all")).split) == ["a", "b"]


def test_folders_of_other_names_are_given(tmp_path):
    root = moved(tmp_path, "boxes", "photos")
    train, test = opened(root, annotations="boxes", images="photos", split={})
    assert len(train.images) == 4 and len(test.images) == 1
    with pytest.raises(ValueError, match=r"no such folder, or no annotations there; expected are XML files in Ann"):
        opened(root, split={})
    with pytest.raises(ValueError, match=r"mine/pictures: no such folder; voc\.images names the one with the images"):
        opened(root, annotations="boxes", images="pictures", split={})


@pytest.mark.parametrize(
    "layout",
    [
        ("train", "train", "test", "test"),
        ("xml/train", "img/train", "xml/test", "img/test"),
        ("annotations", "images/train", "annotations", "images/test"),
        ("train/xml", "train/images", "test/xml", "test/images"),
    ],
)
def test_an_image_set_may_be_a_folder(tmp_path, layout):
    moved(tmp_path / "1", layout[0], layout[1], names="ab").rename(tmp_path / "one")
    moved(tmp_path / "2", layout[2], layout[3], names="cde").rename(tmp_path / "two")
    for file in [path for path in (tmp_path / "two").rglob("*") if path.is_file()]:
        target = tmp_path / "one" / file.relative_to(tmp_path / "two")
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    train, test = opened(tmp_path / "one", train="train", test="test")
    assert (ids(train), ids(test)) == (["a", "b"], ["c", "d", "e"])
    assert all(image.file.is_file() for image in (*train.images, *test.images))


def test_a_share_is_drawn_by_a_seed_and_the_sides_are_apart(tmp_path):
    root = moved(tmp_path, ".", ".", names=[f"n{k:02d}" for k in range(20)])
    splits = {seed: opened(root, split={"test": 0.25, "seed": seed}) for seed in (0, 1)}
    for train, test in splits.values():
        assert (len(train.images), len(test.images)) == (15, 5)
        assert sorted(ids(train) + ids(test)) == [f"n{k:02d}" for k in range(20)]
    assert set(ids(splits[0][1])) != set(ids(splits[1][1]))
    again = opened(root, split={"test": 0.25, "seed": 0})
    assert ids(again[1]) == ids(splits[0][1])
    assert "5 of 20 images are drawn for the test split (voc.split, seed 0)" in again[1].summary()["notes"][0]
    hashes = {Stage("evaluate", {"data": data_of(root, split={"seed": seed})}, (), 0).hash for seed in (0, 0, 1)}
    assert len(hashes) == 2
    listed = write_voc(tmp_path / "listed", dict.fromkeys("abcdefgh", CAT), "trainval")
    train, test = opened(listed, split={"of": "trainval"})
    assert sorted(ids(train) + ids(test)) == list("abcdefgh") and len(test.images) == 2


def test_a_draw_that_leaves_nothing_and_a_list_beside_it_are_refused(tmp_path):
    root = moved(tmp_path, ".", ".", names="ab")
    with pytest.raises(ValueError, match=r"voc\.split\.test 0\.1 of 2 images leaves a side without any"):
        opened(root, split={"test": 0.1})
    with pytest.raises(ValidationError, match=r"leave out test: val \(split\.of names what to draw from\)"):
        DetectorData.model_validate({"voc": {"root": root, "test": "val", "split": {}}})
    for share in (0, 1, -0.5):
        with pytest.raises(ValidationError):
            DetectorData.model_validate({"voc": {"root": root, "split": {"test": share}}})


@pytest.mark.parametrize(
    "lines",
    ["a 1\nb -1\nc  0\n", "a.jpg\nb.JPG\nc.xml\n", "JPEGImages/a.jpg\n./b\n/data/x/c.png\n", "a.jpg 1\n\ufeffb\nc\t-1"],
)
def test_lists_with_flags_suffixes_and_folders_are_read(tmp_path, lines):
    root = write_voc(tmp_path, dict.fromkeys("abc", CAT))
    (root / "ImageSets" / "Main" / "test.txt").write_text(lines.replace("\ufeff", ""))
    split = VocDataset(root, "test").split
    assert ids(split) == ["a", "b", "c"] and split.problems == ()
    flags = sum(len(line.split()) > 1 for line in lines.splitlines())
    assert len(split.notes) == (flags > 0) and all(f"{flags} names have a flag" in note for note in split.notes)


def test_names_with_spaces_and_dots_stay_whole(tmp_path):
    names = ["my cat 1", "a.rf.1", "b.jpg"]
    root = write_voc(tmp_path, dict.fromkeys(names, CAT))
    assert ids(VocDataset(root, "test").split) == names


@pytest.mark.parametrize("name", ["test", "test.txt"])
@pytest.mark.parametrize("place", ["ImageSets/Main", "ImageSets", "."])
def test_lists_are_found_by_name_with_and_without_a_suffix(tmp_path, place, name):
    root = write_voc(tmp_path, {"a": CAT})
    (root / "ImageSets" / "Main" / "test.txt").rename(root / place / "test.txt")
    assert ids(VocDataset(root, name).split) == ["a"]


@pytest.mark.parametrize(
    "make", [lambda path: path, lambda path: path.mkdir(), lambda path: (path / "Annotations").mkdir(parents=True)]
)
def test_the_expected_layout_is_said_where_it_is_not_there(tmp_path, make):
    make(tmp_path / "x")
    for image_set in ("trainval", "all"):
        with pytest.raises(ValueError, match=r"expected are XML files in Annotations/ and images in JPEGImages/"):
            _ = VocDataset(tmp_path / "x", image_set).split


def test_an_unknown_list_is_refused_with_those_that_are_there(tmp_path):
    write_voc(tmp_path, {"a": CAT}, "mine")
    with pytest.raises(ValueError, match=r"Main/val\.txt: cannot be read: No such file .*lists there: mine; folders"):
        _ = VocDataset(tmp_path, "val").split


def test_a_size_that_is_absent_is_the_file_s(tmp_path):
    write_voc(tmp_path, {"a": CAT, "b": CAT}, size=(0, 0))
    split = check_dataset(VocDataset(tmp_path, "test")).split
    assert [(image.width, image.height) for image in split.images] == [(96, 64), (96, 64)]
    assert "2 images without a size, taken from the file (repaired)" in split.summary()["notes"][0]


def test_fractions_are_named_in_xml_too(tmp_path):
    write_voc(tmp_path, {"a": [voc_object("cat", (0.1, 0.2, 0.5, 0.9))]})
    with pytest.raises(ValueError, match=r"1 of 1 boxes that look normalised .*a\.jpg: \[0\.1, 0\.2, 0\.5, 0\.9\]"):
        check_dataset(VocDataset(tmp_path, "test"))


def begin(data, folder):
    trained = Stage("train_detector", {"data": data}, (), 0)
    check_detection_data([trained, Stage("evaluate", {"data": data, "split": "test"}, (), 0)], folder)


def test_a_class_of_the_test_images_alone_is_refused_unless_it_is_listed(tmp_path, capsys):
    write_voc(tmp_path, {"a": CAT}, "train")
    write_voc(tmp_path, {"x": CAT, "b": DOG}, "test")
    with pytest.raises(
        ValueError, match=r"test\.txt: 1 boxes of a class that training has no box of, such as 'dog' in"
    ):
        begin(data_of(tmp_path, train="train"), tmp_path)
    given = make_parser(None, add_arguments).parse_args(["--voc", str(tmp_path), "train", "test"])
    assert launch(lambda: main(given)) == 1
    assert "'dog' in b.jpg (trained on: 'cat')" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "JPEGImages" / "a.jpg").write_bytes(encoded(picture(7, size=(96, 64)), "JPEG"))
    begin(data_of(tmp_path, train="train", classes=["cat", "dog"]), tmp_path)


def test_a_listed_class_without_boxes_is_named(tmp_path):
    write_voc(tmp_path, {"a": CAT}, "train")
    write_voc(tmp_path, {"b": CAT}, "test")
    train, test = opened(tmp_path, train="train", classes=["dog", "cat"])
    assert train.classes == test.classes == ("dog", "cat")
    assert "category 'dog' has no box, nor in" in train.summary()["notes"][0]
    assert "it has no box of 'dog', which therefore has no AP" in test.summary()["notes"][0]


def breaking(root):
    """One image absent, one cut short, one annotation absent, one of no XML."""
    (root / "JPEGImages" / "b.jpg").unlink()
    content = (root / "JPEGImages" / "c.jpg").read_bytes()
    (root / "JPEGImages" / "c.jpg").write_bytes(content[: len(content) // 2])
    (root / "Annotations" / "d.xml").unlink()
    write_annotation(root, "e", [], before="<!DOCTYPE a>")


def test_broken_files_of_a_detection_set_are_skipped_where_that_is_asked_for(tmp_path, capsys):
    root = write_voc(tmp_path, dict.fromkeys("zx", CAT), "test")
    write_voc(tmp_path, dict.fromkeys("abcde", CAT), "train")
    for name in "zx":
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(encoded(picture(ord(name), size=(96, 64)), "JPEG"))
    breaking(root)
    voc = {"root": str(root), "train": "train"}
    data = detection_data(DetectorData.model_validate({"voc": voc}))
    with pytest.raises(ValueError, match="images missing"):
        begin(data, tmp_path)
    skipping = detection_data(DetectorData.model_validate({"voc": voc, "skip_broken": True}))
    begin(skipping, tmp_path)
    train = open_detection(skipping, "train", tmp_path).split
    assert ids(train) == ["a"] and by_kind(train.problems) == {}
    (note,) = train.summary()["notes"]
    assert "train.txt: 4 of 5 images are broken and left out (skip_broken): " in note
    assert all(name in note for name in ("b.jpg", "c.jpg", "d.xml", "e.xml"))
    hashes = [Stage("evaluate", {"data": each}, (), 0).hash for each in (data, skipping)]
    assert hashes[0] != hashes[1]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"detector": {"dataset": {"voc": voc, "skip_broken": True}}}))
    assert launch(lambda: main(make_parser(None, add_arguments).parse_args([str(tmp_path / "mine.yaml")]))) == 0
    assert "4 of 5 images are broken and left out" in " ".join(capsys.readouterr().out.split())


def test_broken_images_of_coco_are_skipped_too_and_a_class_that_is_gone_is_not(tmp_path):
    boxes = [coco_box(k, k, [4, 4, 8, 8]) for k in (1, 2)]
    files = {name: encoded(picture(k), "PNG") for k, name in enumerate(("a.png", "b.png"))}
    test = write_coco(tmp_path / "test", {"t.png": encoded(picture(9), "PNG")})
    train = write_coco(tmp_path / "train", files | {"b.png": b"none"}, boxes)
    coco = {
        side: {"annotations": each.annotations, "images": each.images}
        for side, each in (("train", train), ("test", test))
    }

    def split():
        section = {"coco": coco, "skip_broken": True}
        return open_detection(detection_data(DetectorData.model_validate(section)), "train", tmp_path).split

    assert ids(split()) == [1] and "1 of 2 images are broken" in split().summary()["notes"][0]
    write_coco(tmp_path / "train", files | {"b.png": b"none"}, [boxes[0], boxes[1] | {"category_id": 7}])
    with pytest.raises(ValueError, match=r"no image of class 'other' can be read, such as .*b\.png"):
        split()


def test_nothing_is_skipped_of_generated_scenes():
    with pytest.raises(ValidationError, match="skip_broken: true has no effect on `digits`"):
        DetectorData.model_validate({"digits": {}, "skip_broken": True})
