"""Data sets in VOC's layout: what is read, clipped, dropped and refused."""

import pytest
from support.voc_layout import voc_object, write_annotation, write_voc

from detect.data import VocDataset, check_dataset, class_names
from detect.data.problems import by_kind
from detect.data.voc import parse_annotation
from detect.data.voc_layout import list_file


def test_pixels_are_counted_from_1_and_classes_are_found(tmp_path):
    write_voc(
        tmp_path,
        {
            "b": [voc_object("dog", (1, 1, 96, 64)), voc_object("cat", (11, 21, 30, 40), difficult=1, truncated=1)],
            "a.rf.1": [],
        },
    )
    split = VocDataset(tmp_path, "test").split
    assert split.classes == ("cat", "dog") and split.problems == () and split.voc_year == 2012
    first, second = split.images
    assert (first.id, first.file.name, first.width, first.height) == ("b", "b.jpg", 96, 64)
    assert (second.id, second.file.name, second.boxes) == ("a.rf.1", "a.rf.1.jpg", ())
    whole, cat = first.boxes
    assert whole.xywh == (0, 0, 96, 64) and whole.label == 1
    assert cat.xywh == (10, 20, 20, 20) and cat.area == 400 and cat.difficult and cat.truncated
    # trained on like any other, but neither right nor wrong in an evaluation
    assert [a["category_id"] for a in split.records()[0]["annotations"]] == [1, 0]
    assert [a["iscrowd"] for a in split.truth()["annotations"]] == [0, 1]
    assert len(split.records(filter_empty=True)) == 1
    check_dataset(VocDataset(tmp_path, "test"))


def test_classes_may_be_given_in_an_order_of_ones_own_and_others_are_refused(tmp_path):
    write_voc(tmp_path, {"a": [voc_object("cat", (1, 1, 9, 9)), voc_object("dgo", (1, 1, 9, 9))]})
    assert class_names(VocDataset(tmp_path, "test", ("dog", "cat"))) == ["dog", "cat"]
    with pytest.raises(ValueError, match=r"1 of 2 boxes of an unknown class, such as a\.xml: dgo 1 1 9 9"):
        check_dataset(VocDataset(tmp_path, "test", ("dog", "cat")))


@pytest.mark.parametrize(
    ("corners", "kind", "trained_on"),
    [
        ((5, 5, 5, 5), "boxes empty", None),
        ((5, 5, 9, 5), "boxes empty", None),
        ((9, 5, 5, 9), "boxes inverted", None),
        ((97, 5, 99, 9), "boxes outside the image", None),
        ((0, 0, 96, 64), "boxes over the edge by at most a pixel", [0, 0, 96, 64]),
        ((-3, 5, 100, 9), "boxes over the edge by more than a pixel", [0, 4, 96, 5]),
    ],
)
def test_boxes_are_clipped_dropped_or_refused_and_counted(tmp_path, corners, kind, trained_on):
    write_voc(tmp_path, {"a": [voc_object("cat", (1, 1, 9, 9)), voc_object("cat", corners)]})
    split = VocDataset(tmp_path, "test").split
    assert list(by_kind(split.problems)) == [kind]
    assert split.summary()["problems"] == {kind: 1}
    boxes = [a["bbox"] for a in split.records()[0]["annotations"]]
    assert boxes == [[0, 0, 9, 9], *([trained_on] if trained_on else [])]
    assert split.summary()["usable"] == len(boxes)
    if kind == "boxes inverted":
        with pytest.raises(ValueError, match="1 of 2 boxes inverted"):
            check_dataset(VocDataset(tmp_path, "test"))
    else:
        check_dataset(VocDataset(tmp_path, "test"))


@pytest.mark.parametrize(
    "entities",
    [
        '<!DOCTYPE annotation [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
        '<!DOCTYPE annotation [<!ENTITY b SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE annotation SYSTEM "http://localhost/annotation.dtd">',
    ],
)
def test_entities_are_refused_not_expanded(tmp_path, entities):
    write_voc(tmp_path, {"a": [voc_object("cat", (1, 1, 9, 9))], "b": [voc_object("cat", (1, 1, 9, 9))]})
    write_annotation(tmp_path, "b", [voc_object("&b;", (1, 1, 9, 9))], before=entities)
    with pytest.raises(ValueError, match=r"1 of 2 annotation files not readable.*b\.xml: it has a document type"):
        check_dataset(VocDataset(tmp_path, "test"))
    content = (tmp_path / "Annotations" / "b.xml").read_text()
    with pytest.raises(ValueError, match="document type"):
        parse_annotation(content.replace("?>", ' encoding="utf-16"?>', 1).encode("utf-16"))


def test_files_that_are_absent_or_broken_are_named(tmp_path):
    write_voc(tmp_path, {name: [voc_object("cat", (1, 1, 9, 9))] for name in "abcdef"})
    (tmp_path / "Annotations" / "a.xml").unlink()
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation><object>")
    write_annotation(tmp_path, "c", ["<object><name>cat</name></object>"])
    write_annotation(tmp_path, "d", [voc_object("cat", (1, "nan", 9, 9)), voc_object(" ", (1, 1, 9, 9))])
    (tmp_path / "JPEGImages" / "e.jpg").unlink()
    write_annotation(tmp_path, "f", [voc_object("cat", (1, 1, 9, 9))], size=(64, 96))
    with pytest.raises(ValueError, match="annotation files missing") as error:
        check_dataset(VocDataset(tmp_path, "test"))
    for part in (
        "a.xml",
        "b.xml: not valid XML",
        "3 of 5 annotations incomplete or not numbers, such as c.xml: object 1",
        "1 of 6 images missing, such as",
        "e.jpg",
        "f.jpg: 96 x 64, annotated as 64 x 96",
    ):
        assert part in str(error.value)


def test_a_list_that_is_absent_or_empty_is_named(tmp_path):
    write_voc(tmp_path, {"a": []})
    with pytest.raises(ValueError, match=r"Main/train\.txt: cannot be read: No such file"):
        class_names(VocDataset(tmp_path, "train"))
    with pytest.raises(ValueError, match=r"test\.txt: not one of its 1 images has a box"):
        class_names(VocDataset(tmp_path, "test"))
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"test\.txt: the list is empty"):
        class_names(VocDataset(tmp_path, "test"))


def test_images_may_be_of_any_format_and_lists_anywhere(tmp_path):
    write_voc(tmp_path / "root", {"a": [voc_object("cat", (1, 1, 9, 9))]})
    (tmp_path / "root" / "JPEGImages" / "a.jpg").rename(tmp_path / "root" / "JPEGImages" / "a.JPEG")
    (tmp_path / "mine.txt").write_text("a\na\n")
    split = VocDataset(tmp_path / "root", str(tmp_path / "mine.txt"), year=2007).split
    assert [image.file.name for image in split.images] == ["a.JPEG"]
    assert by_kind(split.problems) == {"images listed twice": ["a"]}
    assert list_file(tmp_path, "test") == tmp_path / "ImageSets" / "Main" / "test.txt"


def test_the_fingerprint_follows_the_contents(tmp_path):
    prints = []
    for corners in ((1, 1, 9, 9), (1, 1, 9, 8), (1, 1, 9, 9)):
        write_voc(tmp_path, {"a": [voc_object("cat", corners)]})
        prints.append(VocDataset(tmp_path, "test").split.fingerprint())
    assert prints[0] == prints[2] != prints[1]
