"""What a detector and its training are told, without Detectron2."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pruning.errors import Refusal
from training.device import Precision
from training.options import Fraction, Positive, Section


@dataclass(frozen=True)
class TrainSettings:
    """How a detector is trained. Durations that stretch with the budget are fractions of `iterations`."""

    iterations: int
    batch_size: int  # images per step over all processes
    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-4  # not on normalisation layers
    schedule: str = "step"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)  # Detectron2's 60k and 80k of 90k
    gamma: float = 0.1
    warmup: float = 0.05
    warmup_factor: float = 1e-3
    clip_norm: float | None = None  # bound of the gradient's L2 norm over all parameters
    seed: int = 0
    precision: str | Precision = "auto"  # one of training.device.PRECISIONS, or what one was settled to
    flip: bool = False
    group_by_aspect: bool = False
    num_workers: int = 0
    checkpoint_every: int = 200  # iterations
    report_every: int = 20


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


class CocoFiles(Section):
    """An annotation file in COCO's format and the folder of its images; relative to the working directory."""

    annotations: Path
    """JSON file of boxes in COCO's format, relative to the working directory."""
    images: Path
    """Folder of its images, relative to the working directory."""


class CocoData(Section):
    """A detection data set of the user's own."""

    train: CocoFiles
    """Training images."""
    test: CocoFiles
    """Test images."""


class VocPart(Section):
    """Training images of Pascal VOC, or of a data set in its layout.

    Without `root` it is Pascal VOC itself, where Detectron2 has it: VOC<year> in $DETECTRON2_DATASETS, or in datasets/.
    `train`: a name in ImageSets/Main, the path of a list of names, a folder with XML files and images of its own, or
    `all`, which is every XML file.
    """

    root: Path | None = None
    """Folder of the data set, relative to the working directory; null: where Detectron2 has Pascal VOC."""
    annotations: Path | None = None
    """Folder of the XML files in `root`; null: Annotations/ or the like, or `root` itself."""
    images: Path | None = None
    """Folder of the images in `root`; null: JPEGImages/, images/ or beside the XML files."""
    train: str = "trainval"
    """Training images: a name in ImageSets/Main, a file with a list, a folder, or `all` XML files."""
    year: Literal[2007, 2012] = 2012
    """Year of Pascal VOC, which also says whose mAP comes first: at 11 points (2007), or continuous."""

    def folder(self) -> Path:
        """Where the data set is."""
        if self.root is not None:
            return self.root
        return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / f"VOC{self.year}"


class VocSplit(Section):
    """A random share of the images is the test split, always the same one for a seed; the rest is trained on."""

    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of the images that becomes the test split."""
    seed: int = 0
    """Seed of the draw; not the seed of a run, so all runs have the same split."""
    of: str = "all"
    """Images to draw from, named as by `train`."""


class VocData(VocPart):
    """Training and test images; `also` joins those of other folders to the training images.

    The usual "07+12" is {year: 2007, also: [{year: 2012}]}. Where there are no lists: {root: ..., split: {test: 0.2}}
    draws both from all images.
    """

    test: str = "test"
    """Test images, named as by `train`."""
    split: VocSplit | None = None
    """Draw training and test images at random from all, instead of `train` and `test`."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Names of the classes to detect; null: those of the annotations, in alphabetical order."""
    also: tuple[VocPart, ...] = ()
    """Further folders whose images join the training images, such as {year: 2012}."""

    @model_validator(mode="after")
    def _drawn(self) -> "VocData":
        named = [key for key, usual in (("train", "trainval"), ("test", "test")) if getattr(self, key) != usual]
        if self.split is not None and named:
            given = " and ".join(f"{key}: {getattr(self, key)}" for key in named)
            raise Refusal(f"split draws training and test images; leave out {given} (split.of names what to draw from)")
        return self

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise Refusal(f"classes {list(value)} repeat themselves")
        return value


class DetectorData(Section):
    """Exactly one of the three.

    `allow_shared`: go on although images of the test split are in training too; the result and the report say how many.
    `skip_broken`: go on without images that are absent or cannot be read, or whose VOC annotations are or cannot be;
    the result and the report name them.
    """

    digits: Scenes | None = None
    """Generated scenes of handwritten digits, which need no download."""
    coco: CocoData | None = None
    """A data set of your own in COCO's format."""
    voc: VocData | None = None
    """Pascal VOC, or a data set of your own in its layout."""
    allow_shared: bool = False
    """Go on although test images are among the training images; the report says how many."""
    skip_broken: bool = False
    """Go on without images or annotations that cannot be read; the report names them."""

    @model_validator(mode="after")
    def _one(self) -> "DetectorData":
        if sum(part is not None for part in (self.digits, self.coco, self.voc)) != 1:
            raise Refusal("give exactly one of `digits`, `coco` and `voc`")
        if self.skip_broken and self.digits is not None:
            raise Refusal("skip_broken: true has no effect on `digits`, which are generated; leave it out")
        return self

    @property
    def title(self) -> str:
        """What a report calls it."""
        if self.voc is not None:
            return f"{self.voc.folder()}, {self.voc.test}"
        return str(self.coco.test.annotations) if self.coco is not None else "digits"


class DetectorTraining(Section):
    """The detection budget, the same for every route; durations are fractions of `iterations`."""

    iterations: Positive
    """Training steps of a detector."""
    batch_size: Positive
    """Images per step, over all processes."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate of a step of `batch_size` images, after the warm-up."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2 penalty on the weights (factor of the gradient term); normalisation layers have none."""
    schedule: Literal["step", "cosine"] = "step"
    """Course of the learning rate: down by `gamma` at `milestones`, or along a cosine to 0."""
    milestones: tuple[Fraction, ...] = (2 / 3, 8 / 9)
    """Where the rate is multiplied by `gamma` (schedule `step`), as fractions of the iterations, ascending."""
    gamma: float = 0.1
    """Factor of the learning rate at each milestone."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Fraction of the iterations in which the learning rate rises from a thousandth of `lr`."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest L2 norm of the gradient over all parameters, which is cut to it; null: no limit."""
    flip: bool = False
    """Mirror training images left to right at random."""
    group_by_aspect: bool = False
    """Make batches of images that are all wide or all tall, which saves padding."""
