"""Everything that `prune-transfer check-data` names: shown, and refused or trained on as it says there."""

import json
import re

import pytest
from PIL import Image
from support.coco_layout import coco_box, encoded, grey_16_bits, picture, turned, write_coco
from support.voc_layout import SIZE, voc_object, write_voc
from support.yolo_layout import write_yolo

from detect.data import VocDataset, check_apart, check_classes, check_dataset
from detect.data import problems as named
from detect.data.loader import train_loader
from detect.data.problems import KINDS
from detect.data.yolo import YoloDataset
from detect.detector_config import make_config
from detect.settings import DetectorSettings
from study.commands.check_data import add_arguments, main
from study.run.launch import launch, make_parser

JPEG, OTHER = (encoded(picture(seed), "JPEG") for seed in (0, 1))
GOOD = coco_box(1, 1, [4, 4, 8, 8])


def with_picture(content):
    return lambda folder: write_coco(folder, {"a.jpg": JPEG, "b.jpg": content})


def with_box(bbox, **more):
    return lambda folder: write_coco(folder, {"a.jpg": JPEG}, [GOOD, coco_box(2, 1, bbox) | more])


def missing(folder):
    dataset = write_coco(folder, {"a.jpg": JPEG, "b.jpg": OTHER})
    (folder / "b.jpg").unlink()
    return dataset


def listed(*images):
    entries = [{"id": k, "file_name": name, "width": 40, "height": 20} for k, name in images]
    return lambda folder: write_coco(folder, {"a.jpg": JPEG, "b.jpg": OTHER}, images=entries)


def without_size(folder):
    entries = [{"id": k, "file_name": name} for k, name in enumerate(("a.jpg", "b.jpg"), 1)]
    return write_coco(folder, {"a.jpg": JPEG, "b.jpg": OTHER}, images=entries)


def all_boxes(*boxes):
    return lambda folder: write_coco(folder, {"a.jpg": JPEG}, [coco_box(k, 1, box) for k, box in enumerate(boxes)])


def voc(change):
    def write(folder):
        write_voc(folder, {name: [voc_object("cat", (1, 1, 9, 9))] for name in "ab"})
        change(folder / "Annotations" / "b.xml")
        return VocDataset(folder, "test")

    return write


def untrained(folder):
    write_voc(folder, {"c": [voc_object("cat", (1, 1, 9, 9))]}, "train")
    write_voc(folder, {"a": [voc_object("cat", (1, 1, 9, 9))], "b": [voc_object("dog", (1, 1, 9, 9))]})
    (folder / "JPEGImages" / "c.jpg").write_bytes(encoded(picture(9, size=SIZE), "JPEG"))
    return VocDataset(folder, "test")


def without_labels(folder):
    box = ["0 0.5 0.5 0.5 0.5"]
    splits = {"images/train": {"a": box, "b": None}, "images/val": {"c": box}}
    path = write_yolo(folder, splits, ["cat"], train="images/train", val="images/val")
    (folder / "config.json").write_text(json.dumps({"detector": {"dataset": {"yolo": {"yaml": str(path)}}}}))
    return YoloDataset(folder, ("images/train",), {0: "cat"})


CASES = {
    named.MISSING: missing,
    named.UNREADABLE: with_picture(JPEG[: len(JPEG) // 2]),
    named.TOO_DEEP: with_picture(encoded(Image.new("F", (40, 20)), "TIFF")),
    named.DEEP: with_picture(grey_16_bits()),
    named.NO_SIZE: without_size,
    named.WRONG_SIZE: with_picture(encoded(picture(1), "JPEG", exif=turned(6))),
    named.TURNED: with_picture(encoded(picture(1), "JPEG", exif=turned(3))),
    named.IMAGE_ID_TWICE: listed((1, "a.jpg"), (1, "b.jpg")),
    named.FILE_TWICE: listed((1, "a.jpg"), (2, "a.jpg")),
    named.SAME_CONTENT: with_picture(JPEG),
    named.SHARED: with_picture(OTHER),
    named.NO_ANNOTATION: voc(lambda file: file.unlink()),
    named.NO_LABELS: without_labels,
    named.BAD_ANNOTATION: voc(
        lambda file: file.write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    ),
    named.STRAY: with_box([4, 4, 8, 8], image_id=9),
    named.ANNOTATION_ID_TWICE: with_box([9, 4, 8, 8], id=1),
    named.MALFORMED: with_box([4, 4, 8]),
    named.UNKNOWN_CLASS: with_box([4, 4, 8, 8], category_id=3),
    named.FROM_POLYGON: with_box(None, segmentation=[[4, 4, 12, 4, 12, 12]]),
    named.BAD_AREA: with_box([9, 4, 8, 8], area=0),
    named.NORMALISED: all_boxes([0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.25, 0.5]),
    named.MOSTLY_OVER: all_boxes([20, 10, 36, 18], [15, 8, 30, 15], [2, 2, 9, 9]),
    named.CORNERS: all_boxes(*([1, 1, 3 + k, 4] for k in range(9)), [20, 4, 30, 9]),
    named.UNTRAINED: untrained,
    named.INVERTED: with_box([4, 4, -2, 8]),
    named.EMPTY: with_box([4, 4, 0, 8]),
    named.OUTSIDE: with_box([40, 4, 5, 5]),
    named.OVER_EDGE: with_box([30, 4, 12, 5]),
    named.AT_EDGE: with_box([30, 4, 10.5, 5]),
}


def test_every_kind_has_a_case():
    assert list(CASES) == list(KINDS)


def words(dataset):
    if isinstance(dataset, YoloDataset):
        return [str(dataset.root / "config.json")]  # JSON is YAML
    if hasattr(dataset, "root"):
        lists = [path.stem for path in sorted((dataset.root / "ImageSets" / "Main").iterdir(), reverse=True)]
        return ["--voc", str(dataset.root), *lists]
    return ["--coco", str(dataset.annotations), str(dataset.images)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_shown_and_what_training_does(kind, tmp_path, capsys):
    dataset = CASES[kind](tmp_path / "it")
    other = CASES[kind](tmp_path / "other") if kind == named.SHARED else None
    arguments = words(dataset) + (words(other) if other else [])
    given = make_parser(None, add_arguments).parse_args(arguments)
    assert launch(lambda: main(given)) == (1 if KINDS[kind].fault else 0)
    shown = " ".join(capsys.readouterr().out.split())
    assert kind in shown and KINDS[kind].effect in shown
    if kind == named.UNTRAINED:
        with pytest.raises(ValueError, match=kind):
            check_classes(check_dataset(VocDataset(dataset.root, "train")), check_dataset(dataset))
        return
    if KINDS[kind].effect == "refused":
        with pytest.raises(ValueError, match="2 of 2 images are in" if other else re.escape(kind)):
            check_apart(check_dataset(dataset), check_dataset(other or dataset))
        return
    check_dataset(dataset)
    cfg = make_config(DetectorSettings(image_size=20), num_classes=len(dataset.split.classes))
    assert next(iter(train_loader(dataset, cfg, batch_size=1, seed=0)))[0]["image"].shape == (3, 20, 40)
