"""Weights that a user gives: what they stand for, the normalisation that comes with them, and their head."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from classify.models import example_input
from classify.models.blank import build_blank
from classify.models.normalization import published_normalization
from classify.published import published_preset, read_published
from classify.weights_file import GivenWeights, load_weights, read_given_weights
from pruning.errors import Refusal
from study.config.sections import Classifier
from study.stages.network import Network
from study.stages.settings import GivenWeights as Settings
from study.stages.settings import TakeWeights, TrainClassifier
from study.stages.stage import Stage
from training.files import file_digest
from training.run_files import NORMALIZATION

# Classifiers inside torchvision's GoogLeNet and Inception, which its weights hold: they only help a training, and the
# networks are built without them
_TRAINING_ONLY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
NOT_COUNTED = "published, not counted"  # of a pretraining whose cost is not known
_COUNTER = "num_batches_tracked"  # may be missing, see `load_weights`
_MOST_NAMES = 3


class SaidNormalization(TypedDict):
    """By channel, of pixels in 0..1, and whose numbers these are."""

    mean: list[float]
    std: list[float]
    source: str


def given_settings(classifier: Classifier, file: Mapping[str, object], *, effect: bool) -> dict[str, object]:
    """What a stage that starts from `classifier.weights` records of them; `file`: their sum and place.

    `counted_epochs`: of the training that the weights stand for, where the stage itself trains on from them.
    """
    if classifier.replace_head:
        return {**file, "replace_head": True}
    return {**file, **({"counted_epochs": classifier.epochs} if effect else {})}


def normalization(classifier: Classifier) -> SaidNormalization | None:
    """Mean, std and whose they are, where they are not the data set's: the user's, or those the weights come with."""
    given = classifier.normalization
    if given == "dataset" or (given is None and classifier.weights is None):
        return None
    if given is not None:
        return {"mean": list(given.mean), "std": list(given.std), "source": "of classifier.normalization"}
    assert classifier.weights is not None
    return normalization_of(classifier.weights, classifier.arch, classifier.options)


def made_for(classifier: Classifier) -> dict[str, object]:
    """What a network without a data set is made for, by its weights: `made_for` and `normalization` of its stage.

    ValueError where nobody knows what its input is normalised by.
    """
    weights, arch, options = classifier.weights, classifier.arch, classifier.options
    assert weights is not None  # a config without a data set has them
    if isinstance(weights, str):
        preset = published_preset(weights, arch, options)
        size, classes = preset.image_size, preset.num_classes
    else:
        size, classes = example_input(arch, options).shape[-1], _classes_in(weights, arch, options)
    found = normalization(classifier)
    if found is None:
        raise Refusal(
            f"classifier.normalization: null: what {weights} was trained with is not known; give mean and std"
        )
    return {"made_for": {"image_size": size, "num_classes": classes}, "normalization": found}


def _classes_in(path: Path, arch: str, options: Mapping[str, object]) -> int:
    """The classes of the head in a file; 1 where it has none, for one that is drawn and thrown away."""
    tensors = read_given_weights(path).tensors
    sizes = {len(tensors[name]) for name in _head(arch, options, 2) if name in tensors}
    return sizes.pop() if len(sizes) == 1 else 1


def normalization_of(weights: Path | str, arch: str, options: Mapping[str, object]) -> SaidNormalization | None:
    """What weights want to be fed with; None where nobody knows, so that it is the data set's.

    Published ones come with it. A file that a study wrote says in its header what its network was trained with; of
    others the architecture tells.
    """
    if isinstance(weights, str):
        preset = published_preset(weights, arch, options)
        return {"mean": list(preset.mean), "std": list(preset.std), "source": f"of {preset.name}"}
    kept = _header(weights).get(NORMALIZATION)
    if kept is not None:
        found = json.loads(kept)
        return {"mean": found["mean"], "std": found["std"], "source": "of the file of weights"}
    published = published_normalization(arch, options)
    if published is None:
        return None
    return {"mean": list(published.mean), "std": list(published.std), "source": published.source}


def header(network: Network) -> dict[str, str]:
    """What a file of weights says of the network's input, for whoever starts from it."""
    return {NORMALIZATION: json.dumps({"mean": list(network.mean), "std": list(network.std)})}


def load_given(model: nn.Module, network: Network, settings: TrainClassifier) -> list[str]:
    """Load the weights of a stage's settings into its unpruned network, in place; returns what there is to say of it.

    ValueError for weights that do not fit; where the head is replaced, that of the file does not matter.
    """
    given = settings.weights
    assert given is not None
    found = _read(given, network.plan.arch)
    weights, notes = found.tensors, list(found.notes)
    if given.replace_head:
        head = _head_of(network)
        weights = {**weights, **{name: model.state_dict()[name] for name in head}}
        notes.append(f"the head ({_some(head)}) was drawn anew for {network.num_classes} classes, as replace_head asks")
    else:
        _check_classes(model, network, weights, settings.dataset["name"], given.file)
    load_weights(model, weights, source=_called(given))
    return [_role(_called(given), settings), *notes]


def load_taken(model: nn.Module, network: Network, given: Settings) -> list[str]:
    """Load weights of which no head is asked into an unpruned network, in place; returns what there is to say of it.

    ValueError for weights that do not fit.
    """
    found = _read(given, network.plan.arch)
    drawn = {name: model.state_dict()[name] for name in _head_of(network) if name not in found.tensors}
    load_weights(model, {**drawn, **found.tensors}, source=_called(given))
    notes = list(found.notes)
    if drawn:
        notes.append(f"{_called(given)} has no head ({_some(list(drawn))}): one was drawn, which a detector leaves out")
    notes.append(network.normalization_note())
    return [f"{_called(given)}: {NOT_COUNTED}; all costs are without the training that made these weights", *notes]


def check_given(network: Network, stage: Stage) -> None:
    """ValueError unless the weights of a stage fit its unpruned network; not looked at if they are not here."""
    if not stage.settings["weights"]["sha256"]:
        return
    model = build_blank(network.plan.arch, network.num_classes, network.plan.options)
    if stage.kind == "take_weights":
        load_taken(model, network, stage.read(TakeWeights).weights)
    else:
        load_given(model, network, stage.read(TrainClassifier))


def _read(given: Settings, arch: str) -> GivenWeights:
    """The tensors by the network's names; ValueError if they are not what they were when the stage was planned."""
    if file_digest(given.file) != given.sha256:
        raise Refusal(f"{given.file}: the file has changed since this run was planned; start the study again")
    if given.name is not None:
        return without_training_only(GivenWeights(read_published(given.name, arch, given.file), ()), arch)
    return without_training_only(read_given_weights(given.file), arch)


def _called(given: Settings) -> str:
    """What a person calls these weights."""
    return given.name or given.file.name


def _role(name: str, settings: TrainClassifier) -> str:
    """What a stage does with the weights, and what is counted for it."""
    if not settings.trains:
        return f"{name} was taken for a finished training and counted as {settings.train.epochs} epochs"
    if settings.counted_epochs:
        assert settings.effect is not None
        before = f"{settings.counted_epochs} epochs are counted for the training that made it, besides this one's"
        return f"{settings.effect.method} trained on from {name}; {before}"
    return f"the network was trained from {name}; the training that made it is not counted"


def _header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; none of others. ValueError if there is no file."""
    file_digest(path)
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError:
        return {}


def without_training_only(given: GivenWeights, arch: str) -> GivenWeights:
    """Weights without those of the classifiers that torchvision adds for training alone, and a note that says so."""
    weights, prefixes = given.tensors, _TRAINING_ONLY.get(arch, ())
    left = {name: tensor for name, tensor in weights.items() if not name.startswith(prefixes)} if prefixes else weights
    if len(left) == len(weights):
        return given
    names = " and ".join(prefix.rstrip(".") for prefix in prefixes)
    note = f"{names} of the given weights, classifiers that only help a training, were left out"
    return GivenWeights(left, (*given.notes, note))


def _check_classes(model: nn.Module, network: Network, weights: Mapping[str, Tensor], dataset: str, path: Path) -> None:
    """ValueError where nothing but the head keeps the weights from fitting: of other classes, or not there."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items() if not name.endswith(_COUNTER)}
    odd = [name for name, shape in wanted.items() if name not in weights or weights[name].shape != shape]
    if not odd or not set(odd) <= set(_head_of(network)):
        return
    there = weights.get(odd[0])
    found = "is not in the file" if there is None else f"has {there.shape[0]} classes"
    raise Refusal(
        f"{path}: the head of these weights ({_some(odd)}) {found}, data set"
        f" {dataset!r} has {network.num_classes}; set classifier.replace_head: true to draw it"
        " anew and train the network from the other weights, or choose the data set that they were trained on"
    )


def _head_of(network: Network) -> list[str]:
    return _head(network.plan.arch, network.plan.options, network.num_classes)


def _head(arch: str, options: Mapping[str, object], num_classes: int) -> list[str]:
    """The tensors whose shapes follow from the number of classes."""
    # built for one class more, only the head has another shape, whatever it is called
    one, other = (build_blank(arch, n, options).state_dict() for n in (num_classes, num_classes + 1))
    return [name for name, tensor in one.items() if tensor.shape != other[name].shape]


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
