"""What is known of a data set before its files are opened: enough to plan a study and to say what it costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from classify.data import read_dataset_options
from classify.data.cifar import CIFAR10, CIFAR100, SIDE, CifarFiles, CifarOptions
from classify.data.digits import DIGIT_CLASSES, DigitsOptions
from classify.data.imagenet import ImageNetOptions
from classify.data.mnist import CLASSES, MnistOptions

_IMAGENET_CLASSES, _IMAGENET_TRAIN = 1000, 1_281_167  # Russakovsky et al., IJCV 2015, table 2
_MNIST_TRAIN, _MNIST_SIDE = 60_000, 28


@dataclass(frozen=True)
class DataInfo:
    """`n_train`: images to train on, those held out for validation not among them. `shape`: (C, H, W) of an image."""

    num_classes: int
    n_train: int
    shape: tuple[int, int, int]


def known_info(name: str, options: Mapping[str, Any]) -> DataInfo | None:
    """The facts of a data set of `DATASETS` with these options; None where only its files can tell."""
    read = read_dataset_options(name, options)
    return INFO[name](read) if name in INFO else None


def _cifar(files: CifarFiles) -> Callable[[CifarOptions], DataInfo]:
    return lambda options: DataInfo(files.n_classes, _left(files.n_train, options.val), (3, SIDE, SIDE))


def _mnist(options: MnistOptions) -> DataInfo:
    return DataInfo(len(CLASSES), _left(_MNIST_TRAIN, options.val), (1, _MNIST_SIDE, _MNIST_SIDE))


def _imagenet(options: ImageNetOptions) -> DataInfo:
    side = options.image_size
    return DataInfo(_IMAGENET_CLASSES, _left(_IMAGENET_TRAIN, options.val), (3, side, side))


def _digits(options: DigitsOptions) -> DataInfo:
    return DataInfo(len(DIGIT_CLASSES), options.n_train, (3, options.image_size, options.image_size))


INFO: dict[str, Callable[[Any], DataInfo]] = {
    "digits": _digits,
    "cifar10": _cifar(CIFAR10),
    "cifar100": _cifar(CIFAR100),
    "mnist": _mnist,
    "imagenet": _imagenet,
}


def _left(total: int, val: float) -> int:
    """What of `total` images is left when `val`, a fraction below 1 or a number of images, is held out."""
    return total - (round(val * total) if val < 1 else int(val))
