"""ImageNet (ILSVRC 2012) as torchvision keeps it: `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`.

The labels of the published test images are secret. As everywhere, its validation images are the test split here, read
once; a validation split is held out of the training images.
"""

from dataclasses import dataclass

from classify.data.check_files import Check, Opening, open_layout, report_ignored
from classify.data.content import Pieces
from classify.data.decode import Crop
from classify.data.image_files import ImageFiles, open_files
from classify.data.layout import Layout, check_classes, read_layout
from classify.data.splits import Location, Splits, held_out
from pruning.errors import Refusal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageNetOptions:
    """`path` below the data folder; `val`: fraction or number of training images held out.

    `image_size`, `resize`: pixels; for testing the shorter side is resized and the centre cut out. `check`: "header"
    reads the beginning of each of the 1.3 million files before training, "full" reads them whole. `skip_broken`: go on
    without those that cannot be read.
    """

    path: str = "imagenet"
    image_size: int = 224
    resize: int = 256
    val: float = 0.01
    check: Check = "header"
    skip_broken: bool = False


def imagenet_splits(options: ImageNetOptions, location: Location) -> Splits:
    """The splits, decoded as they are read; classes are the identifiers (wnids) in alphabetical order.

    ValueError for a wnid that is in train and not in val or the other way, and for files that cannot be read.
    """
    files = _files(options, location)
    listing = files.listing()
    layout = _with_test(read_layout(files.root, listing), options.val, location.seed)
    crop = Crop(options.image_size, options.resize)
    how = Opening(crop, False, options.check, options.skip_broken, location.workers, location.memory)
    opened, notes = open_layout(files, layout, how)
    notes = (*report_ignored(files, listing), *notes)
    return Splits(opened["train"], opened["val"], opened["test"], IMAGENET_MEAN, IMAGENET_STD, notes)


def imagenet_pieces(options: ImageNetOptions, location: Location) -> Pieces:
    """The images of all splits; ValueError where there is no folder."""
    return _files(options, location).pieces()


def _files(options: ImageNetOptions, location: Location) -> ImageFiles:
    try:
        return open_files(location.root / options.path)
    except ValueError as error:
        raise Refusal(
            f"{error}; ImageNet is a folder or a zip with train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, from"
            " image-net.org, which gives it to those who register: it cannot be downloaded from here"
        ) from error


def _with_test(layout: Layout, val: float, seed: int) -> Layout:
    """The validation images on disk become the test split, and others are held out of training."""
    if set(layout.splits) != {"train", "val"}:
        raise Refusal(f"{layout.root}: has {', '.join(layout.splits)}; ImageNet is train/<wnid> and val/<wnid>")
    check_classes(layout)
    train = layout.splits["train"]
    kept, held = held_out(train.labels, val, seed=seed, split="val")
    splits = {"train": train.subset(kept), "val": train.subset(held), "test": layout.splits["val"]}
    return Layout(layout.root, layout.classes, splits)
