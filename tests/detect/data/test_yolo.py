"""YOLO's text files: what a line means, where files are, what is refused."""

import re

import pytest
import yaml
from pydantic import ValidationError
from support.yolo_layout import write_yolo

from detect.data import check_dataset
from detect.data.open import annotations_now, detection_data, open_detection
from detect.data.problems import by_kind
from detect.settings import DetectorData
from study.stages.stage import Stage

CAT, DOG = "0 0.5 0.5 0.25 0.5", "1 0.25 0.5 0.5 1"
USUAL = {"images/train": {"a": [CAT, DOG], "b": [DOG]}, "images/val": {"c": [CAT]}}
PLACES = {"train": "images/train", "val": "images/val"}


def data_of(**yolo):
    return detection_data(DetectorData.model_validate({"yolo": yolo}))


def opened(tmp_path, **yolo):
    data = data_of(**yolo)
    return [open_detection(data, side, tmp_path / "data").split for side in ("train", "test")]


def of_lines(tmp_path, *lines):
    """The training split of one image with these lines, beside one with a cat."""
    splits = {"images/train": {"a": lines, "z": [CAT]}, "images/val": {"c": [CAT, DOG]}}
    write_yolo(tmp_path, splits, **PLACES)
    return open_detection(data_of(root=tmp_path), "train", tmp_path)


def test_a_line_is_a_box_in_pixels(tmp_path):
    train, test = opened(tmp_path, yaml=write_yolo(tmp_path, USUAL, **PLACES))
    assert train.classes == test.classes == ("cat", "dog") and train.category_ids == (0, 1)
    assert [image.id for image in train.images] == ["images/train/a.png", "images/train/b.png"]
    cat, dog = train.images[0].boxes  # the image is 80 x 40
    assert cat.xywh == (30, 10, 20, 20) and cat.label == 0 and cat.area == 400
    assert dog.xywh == (0, 0, 40, 40) and dog.label == 1
    assert check_dataset(open_detection(data_of(yaml=tmp_path / "data.yaml"), "train", tmp_path)).sound


@pytest.mark.parametrize(
    "names", [{0: "cat", 1: "dog"}, {"0": "cat", "1": "dog"}, ["cat", "dog"], {1: "dog", 0: "cat", 7: "unused"}]
)
def test_names_are_a_list_or_a_mapping(tmp_path, names):
    write_yolo(tmp_path, USUAL, **PLACES)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**PLACES, "names": names}))
    assert opened(tmp_path, root=tmp_path)[0].classes == ("cat", "dog")


def test_roboflow_says_one_folder_too_many(tmp_path):
    splits = {"train/images": USUAL["images/train"], "valid/images": USUAL["images/val"]}
    path = write_yolo(tmp_path / "export", splits, train="../train/images", val="../valid/images", nc=2)
    train, test = opened(tmp_path, yaml=path)
    assert len(train.images) == 2 and [image.id for image in test.images] == ["valid/images/c.png"]
    assert len(list(test.boxes())) == 1


def test_the_test_split_is_the_yaml_s_own_where_it_has_one(tmp_path):
    write_yolo(tmp_path, USUAL | {"images/test": {"t": [DOG]}}, **PLACES, test="images/test")
    assert opened(tmp_path, root=tmp_path)[1].images[0].id == "images/test/t.png"
    assert opened(tmp_path, root=tmp_path, test="images/val")[1].images[0].id == "images/val/c.png"


def test_lists_of_files_and_several_folders(tmp_path):
    splits = {"images/one": {"a": [CAT]}, "images/two": {"b": [DOG]}, "images/val": {"c": [CAT]}}
    write_yolo(tmp_path, splits, train=["images/one", "images/two"], val="val.txt")
    (tmp_path / "val.txt").write_text("./images/val/c.png\n\nimages/two/b.png\n")
    train, test = opened(tmp_path, root=tmp_path)
    assert [image.id for image in train.images] == ["images/one/a.png", "images/two/b.png"]
    assert [image.id for image in test.images] == ["images/val/c.png", "images/two/b.png"]
    before = data_of(root=tmp_path)
    (tmp_path / "val.txt").write_text("./images/val/c.png\n")
    assert annotations_now(before) != before


@pytest.mark.parametrize("said", ["", ".", "mine", "../mine"])
def test_path_is_looked_for_from_the_yaml_on(tmp_path, said):
    write_yolo(tmp_path / "mine", USUAL, **PLACES, path=said)
    assert len(opened(tmp_path, yaml=tmp_path / "mine" / "data.yaml")[0].images) == 2


def test_path_that_is_nowhere_is_replaced_by_root(tmp_path):
    path = write_yolo(tmp_path / "mine", USUAL, **PLACES, path="/content/elsewhere")
    with pytest.raises(ValueError, match=r"data\.yaml: path: there is no folder /content/elsewhere .*yolo\.root"):
        data_of(yaml=path)
    assert len(opened(tmp_path, yaml=path, root=tmp_path / "mine")[0].images) == 2


def test_without_a_yaml_the_config_says_it(tmp_path):
    write_yolo(tmp_path, USUAL).unlink()
    told = {"root": tmp_path, "train": "images/train", "test": "images/val", "names": ["cat", "dog"]}
    assert opened(tmp_path, **told)[0].classes == ("cat", "dog")
    with pytest.raises(ValueError, match=r"no YAML there; name one by yolo\.yaml, or give train, test and names"):
        data_of(root=tmp_path)
    for odd, message in (
        ({"train": "a"}, "give `yaml`, the data set's YAML, or `root`, its folder"),
        ({"root": tmp_path, "names": ["a"]}, "without a YAML, give train and test too"),
        ({"yaml": tmp_path / "x.yaml", "names": ["a"]}, "the YAML names the classes; leave one of the two out"),
    ):
        with pytest.raises(ValidationError, match=message):
            DetectorData.model_validate({"yolo": odd})


def test_labels_may_be_beside_the_images(tmp_path):
    write_yolo(tmp_path, {"train": {"a": [CAT, DOG]}, "val": {"c": [CAT]}}, train="train", val="val")
    assert len(list(opened(tmp_path, root=tmp_path)[0].boxes())) == 2


def test_no_file_and_an_empty_one_are_no_objects_and_the_first_is_counted(tmp_path):
    splits = {"images/train": {"a": [CAT, DOG], "empty": [], "none": None}, "images/val": {"c": [CAT]}}
    write_yolo(tmp_path, splits, **PLACES)
    data = data_of(root=tmp_path)
    checked = check_dataset(open_detection(data, "train", tmp_path))
    assert checked.sound and [len(image.boxes) for image in checked.split.images] == [2, 0, 0]
    summary = checked.split.summary()
    assert summary["images_without_boxes"] == 2
    assert summary["problems"] == {"images without a label file, which have no objects then": 1}
    hashes = {Stage("evaluate", {"data": data}, (), 0).hash}
    for text in ("", f"{CAT}\n"):  # each another data set
        (tmp_path / "labels" / "train" / "none.txt").write_text(text)
        hashes.add(Stage("evaluate", {"data": annotations_now(data)}, (), 0).hash)
    assert len(hashes) == 3


def test_labels_in_another_place_are_not_taken_for_none(tmp_path):
    write_yolo(tmp_path, USUAL, **PLACES)
    (tmp_path / "labels").rename(tmp_path / "annotations")
    with pytest.raises(ValueError, match=r"not one of its 2 images has a box; labels are looked for as in .*a\.txt"):
        opened(tmp_path, root=tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "4 values; a box has a class and 4 numbers"),
        ("0 0.5 0.5 0.2 0.2 0.9", "6 values; a box has"),
        ("0 0.5 0.5 0.2 0.2 0.9 0.1 0.1", "8 values"),
        ("cat 0.5 0.5 0.2 0.2", "not all are numbers"),
        ("0 0.5 0.5 0.2 x", "not all are numbers"),
        ("0 0.5 0.5 0.2 nan", "fractions of the image are from 0 to 1"),
        ("0 40 20 20 20", "fractions of the image are from 0 to 1"),
        ("0.5 0.5 0.5 0.2 0.2", "0.5 is no number of a class"),
        ("-1 0.5 0.5 0.2 0.2", "-1 is no number of a class"),
        ("2 0.5 0.5 0.2 0.2", "class 2; there are 0, 1"),
    ],
)
def test_a_malformed_line_is_refused_with_its_file_and_number(tmp_path, line, message):
    dataset = of_lines(tmp_path, CAT, DOG, "", line)
    ((where,),) = by_kind(dataset.split.problems).values()
    assert where.startswith(f"{tmp_path}/labels/train/a.txt, line 4: {line}") and message in where
    with pytest.raises(ValueError, match=re.escape(where)):
        check_dataset(dataset)


def test_a_class_number_may_be_written_as_a_float(tmp_path):
    assert of_lines(tmp_path, DOG.replace("1 ", "1.0 ", 1)).split.images[0].boxes[0].label == 1


def test_a_polygon_is_the_box_around_it(tmp_path):
    dataset = of_lines(tmp_path, "1 0.25 0.25 0.75 0.5 0.5 1.0", DOG)
    assert dataset.split.images[0].boxes[0].xywh == (20, 10, 40, 30)
    assert "1 boxes without a bbox, taken from the polygons" in dataset.split.summary()["notes"][0]
    assert check_dataset(dataset).sound


def test_boxes_beyond_the_edge_are_cut_and_those_without_extent_dropped(tmp_path):
    over, empty = of_lines(tmp_path, "0 0.1 0.5 0.3 0.5", "1 0.5 0.5 0 0.2").split.images[0].boxes
    assert over.trainable and over.clipped(80, 40) == [0.0, 10.0, 20.0, 20.0] and not empty.trainable


def test_corners_in_the_place_of_centres_are_noticed(tmp_path):
    lines = ["0 0.5 0.5 0.9 0.9", "1 0.6 0.6 0.95 0.95", "0 0.7 0.7 1.0 1.0", "1 0.5 0.6 0.9 1"]
    with pytest.raises(ValueError, match=r"boxes over the edge: most boxes reach over it \(corners\?\)"):
        check_dataset(of_lines(tmp_path, *lines))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"names": None}, r"data\.yaml: names: None; the classes are a list \[a, b\] or a mapping \{0: a, 1: b\}"),
        ({"names": ["a", "a"]}, r"names: \['a', 'a'\] repeat themselves"),
        ({"names": {"a": "cat"}}, "names: 'a' is no number of a class"),
        ({"names": [True]}, "names: True is no name of a class; put it in quotes"),
        ({"nc": 3}, "nc is 3, but names lists 2 classes"),
        ({"kpt_shape": [17, 3]}, "kpt_shape: its labels are of keypoints"),
        ({"train": 3}, "train: 3 is no folder"),
        ({"train": "images/no"}, r"images/no: there is no such folder or list of images; yolo\.root is where"),
        ({"val": None}, r"yolo\.test: the YAML has no test images; name their folder"),
    ],
)
def test_a_yaml_that_cannot_be_meant_is_one_sentence(tmp_path, said, message):
    path = write_yolo(tmp_path, USUAL)
    path.write_text(yaml.safe_dump({"names": ["cat", "dog"], **PLACES, **said}))
    with pytest.raises(ValueError, match=message):
        data_of(yaml=path)


def test_no_yaml_at_all_and_one_that_is_a_list(tmp_path):
    with pytest.raises(ValueError, match=r"no\.yaml: No such file"):
        data_of(yaml=tmp_path / "no.yaml")
    (tmp_path / "data.yaml").write_text("[a]")
    with pytest.raises(ValueError, match="a data set is a mapping with train, val and names"):
        data_of(root=tmp_path)
