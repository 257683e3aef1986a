"""Scenes of handwritten digits, generated from their options; see detect/scenes.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from detect.data.coco import CocoDataset
from detect.data.sets.dataset import DataSet
from detect.scenes import write_scenes
from training.options import Positive, Section


class Scenes(Section):
    """The embedded detection data: scenes of several digits on photographs (detect/scenes.py)."""

    image_size: Annotated[int, Field(ge=32)] = 128
    """Side of the square scenes in pixels."""
    train: Positive = 600
    """Number of training scenes."""
    val: Positive = 60
    """Number of validation scenes."""
    test: Positive = 300
    """Number of test scenes."""
    digits_per_scene: tuple[Positive, Positive] = (2, 6)
    """Fewest and most digits in a scene."""
    digit_size: tuple[Positive, Positive] = (16, 44)
    """Smallest and largest side of a digit in pixels."""
    seed: int = 0
    """Seed of the scenes; not the seed of a run, so all runs see the same data."""


def _open(identity: Mapping[str, object], split: str, root: Path | None) -> CocoDataset:
    """The scenes of a split, which are written below `root` once."""
    options = Scenes.model_validate(identity)
    assert root is not None  # without it nothing is written, and so no scene
    scenes = write_scenes(
        root,
        images={"train": options.train, "val": options.val, "test": options.test},
        image_size=options.image_size,
        digits_per_scene=options.digits_per_scene,
        digit_size=options.digit_size,
        seed=options.seed,
    )[split]
    return CocoDataset(scenes.annotations, scenes.image_dir)


DIGITS = DataSet(
    options=Scenes,
    meaning="Generated scenes of handwritten digits, which need no download.",
    title=lambda _: "digits",
    identity=lambda scenes: scenes.model_dump(mode="json"),
    has_val=lambda scenes: True,
    open=_open,
)
