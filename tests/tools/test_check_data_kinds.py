"""Everything that the checker names: shown by tools/check_data.py, and refused or trained on as it says there."""

import pytest
from PIL import Image
from support.coco_layout import coco_box, encoded, grey_16_bits, picture, turned, write_coco
from support.voc_layout import voc_object, write_voc

from detect.data import VocDataset, check_apart, check_dataset, train_loader
from detect.data import problems as named
from detect.data.problems import KINDS
from detect.detector_config import DetectorSettings, make_config
from study.run.launch import launch
from tools.check_data import main, make_parser

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


def voc(change):
    def write(folder):
        write_voc(folder, {name: [voc_object("cat", (1, 1, 9, 9))] for name in "ab"})
        change(folder / "Annotations" / "b.xml")
        return VocDataset(folder, "test")

    return write


CASES = {
    named.MISSING: missing,
    named.UNREADABLE: with_picture(JPEG[: len(JPEG) // 2]),
    named.TOO_DEEP: with_picture(encoded(Image.new("F", (40, 20)), "TIFF")),
    named.DEEP: with_picture(grey_16_bits()),
    named.WRONG_SIZE: with_picture(encoded(picture(1), "JPEG", exif=turned(6))),
    named.TURNED: with_picture(encoded(picture(1), "JPEG", exif=turned(3))),
    named.IMAGE_ID_TWICE: listed((1, "a.jpg"), (1, "b.jpg")),
    named.FILE_TWICE: listed((1, "a.jpg"), (2, "a.jpg")),
    named.SAME_CONTENT: with_picture(JPEG),
    named.SHARED: with_picture(OTHER),
    named.NO_ANNOTATION: voc(lambda file: file.unlink()),
    named.BAD_ANNOTATION: voc(
        lambda file: file.write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    ),
    named.STRAY: with_box([4, 4, 8, 8], image_id=9),
    named.ANNOTATION_ID_TWICE: with_box([9, 4, 8, 8], id=1),
    named.MALFORMED: with_box([4, 4, 8]),
    named.UNKNOWN_CLASS: with_box([4, 4, 8, 8], category_id=3),
    named.INVERTED: with_box([4, 4, -2, 8]),
    named.EMPTY: with_box([4, 4, 0, 8]),
    named.OUTSIDE: with_box([40, 4, 5, 5]),
    named.OVER_EDGE: with_box([30, 4, 12, 5]),
    named.AT_EDGE: with_box([30, 4, 10.5, 5]),
}


def test_every_kind_has_a_case():
    assert list(CASES) == list(KINDS)


def words(dataset):
    if hasattr(dataset, "root"):
        return ["--voc", str(dataset.root), "test"]
    return ["--coco", str(dataset.annotations), str(dataset.images)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_shown_and_what_training_does(kind, tmp_path, capsys):
    dataset = CASES[kind](tmp_path / "it")
    other = CASES[kind](tmp_path / "other") if kind == named.SHARED else None
    arguments = words(dataset) + (words(other) if other else [])
    assert launch(lambda: main(make_parser().parse_args(arguments))) == (1 if KINDS[kind].fault else 0)
    shown = " ".join(capsys.readouterr().out.split())
    assert kind in shown and KINDS[kind].effect in shown
    if KINDS[kind].effect == "refused":
        with pytest.raises(ValueError, match="2 of 2 images are in" if other else kind):
            check_apart(check_dataset(dataset), check_dataset(other or dataset))
        return
    check_dataset(dataset)
    cfg = make_config(DetectorSettings(num_classes=len(dataset.split.classes), image_size=20))
    assert next(iter(train_loader(dataset, cfg, batch_size=1, seed=0)))[0]["image"].shape == (3, 20, 40)
