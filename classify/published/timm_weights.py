"""Weights of timm's networks, in the cache of the Hugging Face hub or of torch.hub."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import torch
from torch import Tensor

from classify.models.timm_networks import PREFIX
from classify.published.preset import Preset
from pruning.errors import Refusal
from training.type_words import known

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

_FILES = ("model.safetensors", "pytorch_model.bin")  # of a repository of the hub, in the order in which timm looks


def preset(arch: str, tag: str, options: Mapping[str, object]) -> Preset:
    """That of a tag such as a1_in1k, or DEFAULT for timm's own choice."""
    config = _config(arch, tag)
    where = f"the hub's repository {config.hf_hub_id}" if config.hf_hub_id else config.url
    return Preset(
        f"timm:{config.tag}",
        tuple(config.mean),
        tuple(config.std),
        config.input_size[-1],
        config.num_classes,
        f"timm gets them from {where}: run once where it can be fetched, or copy the cache of a machine that has them",
    )


def cached(arch: str, tag: str) -> Path | None:
    """The file in the cache that timm would look into."""
    config = _config(arch, tag)
    if not config.hf_hub_id:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(str(config.url)).path).name
        return file if file.is_file() else None
    from huggingface_hub import try_to_load_from_cache  # timm needs it

    repository, _, revision = config.hf_hub_id.partition("@")
    names = (config.hf_hub_filename,) if config.hf_hub_filename else _FILES
    found = (try_to_load_from_cache(repository, name, revision=revision or None) for name in names)
    return next((Path(file) for file in found if isinstance(file, str)), None)


def fetch(arch: str, tag: str) -> None:
    """Download by timm."""
    import timm

    timm.create_model(_full_name(arch, tag), pretrained=True)


def renamed(arch: str, tag: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What timm makes of the file for today's form of the network."""
    import timm

    model = timm.create_model(_full_name(arch, tag), pretrained=True, pretrained_cfg_overlay={"state_dict": tensors})
    return dict(model.state_dict())


def _config(arch: str, tag: str) -> "PretrainedCfg":
    """timm's configuration of these weights."""
    if find_spec("timm") is None:
        raise Refusal(f"timm:{tag}: timm is not installed: pip install timm")
    import timm  # here, not above: a second to import, and needed by few

    plain = arch.removeprefix(PREFIX)
    if not timm.is_model(plain):
        raise Refusal(f"timm:{tag}: timm has no network {arch!r}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{plain}.*")]
    known(tag, ("DEFAULT", *tags), f"timm's weights of {arch}")
    config = timm.get_pretrained_cfg(_full_name(arch, tag))
    assert config is not None  # the tag is one of its list
    return config


def _full_name(arch: str, tag: str) -> str:
    plain = arch.removeprefix(PREFIX)
    return plain if tag == "DEFAULT" else f"{plain}.{tag}"
