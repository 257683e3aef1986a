"""A raccoon-like VOC folder, a Roboflow export and a YOLO folder, each from check_data to a report."""

import json

import pytest
import yaml
from support.coco_layout import encoded, picture
from support.tiny_study import DIGITS, TINY
from support.voc_layout import voc_object, write_voc
from support.yolo_layout import write_yolo

from study.commands import check_data, run
from study.run.launch import launch, make_parser


def like_raccoon(folder):
    """XML and JPEG in annotations/ and images/, no lists; a share of them is drawn for the test."""
    write_voc(folder, {f"raccoon-{k}": [voc_object("raccoon", (5 + k, 5, 40 + k, 50))] for k in range(6)})
    (folder / "Annotations").rename(folder / "annotations")
    (folder / "JPEGImages").rename(folder / "images")
    (folder / "ImageSets" / "Main" / "test.txt").unlink()
    return {"voc": {"root": str(folder), "split": {"test": 0.34}}}


def like_roboflow(folder):
    """_annotations.coco.json beside the images, and a category 0 that is nothing but the others' supercategory."""
    for seed, split in enumerate(("train", "valid", "test")):
        (folder / split).mkdir(parents=True)
        images = [{"id": k, "file_name": f"{split}{k}_jpg.rf.0.jpg", "width": 96, "height": 64} for k in range(4)]
        for image in images:
            content = encoded(picture(10 * seed + image["id"], size=(96, 64)), "JPEG")
            (folder / split / image["file_name"]).write_bytes(content)
        categories = [{"id": 0, "name": "animals", "supercategory": "none"}]
        categories.append({"id": 1, "name": "raccoon", "supercategory": "animals"})
        boxes = [
            {"id": k, "image_id": k, "category_id": 1, "bbox": [5, 5, 40, 40], "area": 1600, "segmentation": []}
            for k in range(4)
        ]
        coco = {"info": {}, "licenses": [], "images": images, "annotations": boxes, "categories": categories}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(coco))
    places = {"train": "train", "val": "valid", "test": "test"}
    return {"coco": {key: {"annotations": f"{folder}/{place}/_annotations.coco.json"} for key, place in places.items()}}


def like_yolo(folder):
    labels = ["0 0.5 0.5 0.5 0.75"]
    splits = {"images/train": dict.fromkeys("abcd", labels) | {"none": None}, "images/val": {"e": labels, "f": []}}
    path = write_yolo(folder, splits, ["raccoon"], path=folder.name, train="images/train", val="images/val")
    return {"yolo": {"yaml": str(path)}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of all three, so that their classifier is trained once."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("make", [like_raccoon, like_roboflow, like_yolo])
def test_from_check_data_to_a_report(make, runs, tmp_path, capsys):
    dataset = {"digits": None, **make(tmp_path / "mine")}
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"_base_": str(DIGITS), "detector": {"dataset": dataset}}))

    def call(tool, *words):
        given = make_parser(None, tool.add_arguments).parse_intermixed_args([str(config), *map(str, words)])
        return launch(lambda: tool.main(given))

    assert call(check_data) == 0, capsys.readouterr()
    printed = capsys.readouterr().out
    assert "raccoon" in printed
    if make is like_roboflow:
        assert "category 'animals' has no box: the detector has no output for it" in " ".join(printed.split())
    small = [word for word in TINY if not word.startswith("detector.dataset")]
    assert call(run, *small, "pipelines=[unpruned]", f"name={make.__name__}", "--runs", runs) == 0
    assert "unpruned" in (runs / make.__name__ / "report.md").read_text()
    results = [json.loads(path.read_text()) for path in runs.glob("evaluate-*/seed0/result.json")]
    (evaluation,) = (result for result in results if str(tmp_path) in json.dumps(result))
    assert list(evaluation["per_class"]) == ["raccoon"]
