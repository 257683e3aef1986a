"""A detection data set looked at before anything is trained: what `prune-transfer check-data` prints."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from detect.data.open import detection_data, is_generated, open_detection, splits_of
from detect.settings import DetectorData
from pruning.errors import Refusal
from study.config.load import read_yaml, validate

if TYPE_CHECKING:  # they import Detectron2, which is slow to load for a mistyped path
    from detect.data import DetectionDataset
    from detect.data.check import Checked

_EXAMPLES = 3


def config_splits(path: Path, runs: Path) -> "dict[str, DetectionDataset]":
    """The splits of the detector's data set in a config of any kind; generated scenes are written below `runs`.

    Files are read anew: what is remembered there of them does not count.
    """
    config = read_yaml(path)
    section = config.get("detector")
    if not isinstance(section, dict) or "dataset" not in section:
        raise Refusal(f"{path}: it has no key detector.dataset, and so no detection data to check")
    data = detection_data(validate(DetectorData, section["dataset"], source=f"{path}: detector.dataset"))
    root = runs / "data" if is_generated(data) else None
    return {split: open_detection(data, split, root) for split in splits_of(data)}


def coco_splits(pairs: Sequence[Sequence[str]]) -> "dict[str, DetectionDataset]":
    """COCO annotation files and the folders of their images, by the files' names; the first is what is trained on."""
    from detect.data import CocoDataset, MatchedDataset

    stems = [Path(annotations).stem for annotations, _ in pairs]
    names = stems if len(set(stems)) == len(stems) else [annotations for annotations, _ in pairs]
    files = [CocoDataset(Path(annotations), Path(images)) for annotations, images in pairs]
    # two sides are matched by their classes: training with the first of the others, alone with itself
    train = MatchedDataset(files[0], files[min(1, len(files) - 1)], "train")
    return dict(zip(names, [train, *(MatchedDataset(files[0], file, "test") for file in files[1:])], strict=True))


def voc_splits(root: Path, image_sets: Sequence[str]) -> "dict[str, DetectionDataset]":
    """Image sets of a folder in VOC's layout; the classes are those of all of them."""
    from detect.data import VocDataset
    from detect.data.voc import voc_classes
    from detect.data.voc_layout import VocSet

    if not image_sets:
        raise Refusal(f"--voc {root}: name the image sets too, such as `--voc {root} train test`")
    classes = voc_classes(tuple(VocSet(root, name) for name in image_sets))
    return {name: VocDataset(root, name, classes) for name in image_sets}


def check_splits(splits: "Mapping[str, DetectionDataset]") -> "dict[str, Checked]":
    """Every split with all that is wrong with it, images that it shares with a split before it included.

    The first is what is trained on: classes of others that it has no box of are named.
    """
    from detect.data.check import check_split, shared_images, untrained_classes

    checked = {name: check_split(dataset.split) for name, dataset in splits.items()}
    for first, second in combinations(splits, 2):
        found = shared_images(checked[first], checked[second])
        shared = [replace(problem, where=f"in {first}: {problem.where}") for problem in found]
        untrained = untrained_classes(checked[first], checked[second]) if first == next(iter(splits)) else ()
        checked[second] = replace(checked[second], problems=(*checked[second].problems, *untrained, *shared))
    return checked


def print_checked(checked: "Mapping[str, Checked]", console: Console) -> None:
    """Two tables: what there is in each split, and what is wrong with it, with counts and examples."""
    from detect.data.problems import KINDS, by_kind

    contents = Table(title="contents")
    for heading in ("split", "images", "without boxes", "boxes", "crowd", "difficult", "boxes by class"):
        contents.add_column(heading, justify="left" if heading in ("split", "boxes by class") else "right")
    faults = Table(title="problems")
    for heading in ("split", "what", "count", "in training", "examples"):
        faults.add_column(heading, justify="right" if heading == "count" else "left", overflow="fold")
    for name, split in checked.items():
        found = split.split.summary()
        counts = (found["images"], found["images_without_boxes"], found["boxes"], found["crowd"], found["difficult"])
        numbers = [f"{count:,}" for count in counts]
        classes = ", ".join(f"{label} {count:,}" for label, count in found["per_class"].items())
        contents.add_row(escape(name), *numbers, escape(classes))
        for kind, places in by_kind(split.problems).items():
            examples = "\n".join(places[:_EXAMPLES]) + ("\n..." if len(places) > _EXAMPLES else "")
            effect = KINDS[kind].effect if KINDS[kind].fault else f"{KINDS[kind].effect}, harmless"
            faults.add_row(escape(name), kind, f"{len(places):,}", effect, escape(examples))
    console.print(contents)
    for note in dict.fromkeys(note for split in checked.values() for note in split.split.notes):
        console.print(f"note: {escape(note)}", soft_wrap=True)
    console.print(faults if faults.rows else "no problems")
