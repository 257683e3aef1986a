"""Classification data sets by name."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from classify.data.cifar import (
    CIFAR10,
    CIFAR100,
    SIDE,
    CifarFiles,
    CifarOptions,
    cifar10_splits,
    cifar100_splits,
    cifar_pieces,
)
from classify.data.content import Pieces
from classify.data.digits import DIGIT_CLASSES, DigitsOptions, digits_splits
from classify.data.folder import FolderOptions, folder_pieces, folder_splits
from classify.data.imagenet import ImageNetOptions, imagenet_pieces, imagenet_splits
from classify.data.mnist import CLASSES, FILES, MnistOptions, mnist_pieces, mnist_splits
from classify.data.splits import Location, Splits
from pruning.errors import Refusal
from training.misfits import misfit

__all__ = ["DATASETS", "Splits", "data_pieces", "dataset_options", "open_splits", "read_dataset_options"]


OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True)
class DataSet(Generic[OptionsT]):
    """A data set's options, all of which have a default, what opens its splits, and what its files consist of."""

    options: type[OptionsT]
    open: Callable[[OptionsT, Location], Splits]
    pieces: Callable[[OptionsT, Location], Pieces] | None = None  # None: it follows from the options alone


DATASETS: dict[str, DataSet[Any]] = {
    "digits": DataSet(DigitsOptions, digits_splits),
    "cifar10": DataSet(CifarOptions, cifar10_splits, partial(cifar_pieces, CIFAR10)),
    "cifar100": DataSet(CifarOptions, cifar100_splits, partial(cifar_pieces, CIFAR100)),
    "mnist": DataSet(MnistOptions, mnist_splits, partial(mnist_pieces, FILES)),
    "imagenet": DataSet(ImageNetOptions, imagenet_splits, imagenet_pieces),
    "folder": DataSet(FolderOptions, folder_splits, folder_pieces),
}


def open_splits(
    name: str,
    *,
    root: Path = Path("data"),
    seed: int = 0,
    workers: int = 0,
    memory: Path | None = None,
    **options: object,
) -> Splits:
    """All splits of a data set of `DATASETS`, files checked; a ValueError says what is wrong with them.

    `root` is the directory of data sets that are read from disk, `seed` decides generated data and held-out splits,
    `workers` is the number of processes that decode images which do not fit in memory (0: this one). `memory` is a
    folder that remembers which files were checked, so that those that did not change are not read again.
    """
    read = read_dataset_options(name, options)
    return DATASETS[name].open(read, Location(root, seed, workers, memory))


def data_pieces(name: str, *, root: Path = Path("data"), **options: object) -> Pieces | None:
    """What the files of a data set of `DATASETS` consist of; None for one that is made here from its options.

    ValueError says what is not there. With the option `download` it is fetched first.
    """
    read = read_dataset_options(name, options)
    pieces = DATASETS[name].pieces
    return None if pieces is None else pieces(read, Location(root))


def dataset_options(name: str) -> dict[str, object]:
    """The options of a data set of `DATASETS` and their defaults."""
    if name not in DATASETS:
        raise Refusal(f"unknown data set {name!r}; choose from {', '.join(DATASETS)}")
    return asdict(DATASETS[name].options())


def read_dataset_options(name: str, given: Mapping[str, object]) -> object:
    """The options of a data set with the values `given`; ValueError names the option, its value and the choices."""
    known = dataset_options(name)
    types, values = get_type_hints(DATASETS[name].options), {}
    for option, value in given.items():
        if option not in known:
            raise Refusal(f"data set {name!r} has no option {option!r}; choose from {', '.join(known)}")
        adapter: TypeAdapter[object] = TypeAdapter(types[option])
        try:
            values[option] = adapter.validate_python(value, strict=True)
        except ValidationError as error:
            raise Refusal(f"option {option!r} of data set {name!r}: {misfit(value, types[option])}") from error
    return DATASETS[name].options(**values)


_IMAGENET_CLASSES, _IMAGENET_TRAIN = 1000, 1_281_167  # Russakovsky et al., IJCV 2015, table 2
_MNIST_TRAIN, _MNIST_SIDE = 60_000, 28


@dataclass(frozen=True)
class DataInfo:
    """`n_train`: images to train on, those held out for validation not among them. `shape`: (C, H, W) of an image."""

    num_classes: int
    n_train: int
    shape: tuple[int, int, int]


def known_info(name: str, options: Mapping[str, object]) -> DataInfo | None:
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
