"""Weights that others publish, by name: `torchvision:<tag>`, `timm:<tag>`, `package:<name>`.

The libraries' own loaders and caches are used, so that what they have fetched once is found without a network. To add a
source: a file here, and a line in SOURCES.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from classify.published import packages, timm_weights, torchvision_weights
from classify.published.preset import Preset
from classify.weights_file import read_given_weights
from pruning.errors import Refusal


@dataclass(frozen=True)
class Source:
    """`preset(arch, tag, options)`: what is known of the weights without reading them; ValueError lists the known tags.

    `cached(arch, tag)`: their file, or None where it is not on this machine; `fetch(arch, tag)` gets it, by any
    exception if it cannot. `renamed(arch, tag, tensors)`: the file's tensors by the names of the library's network.
    """

    preset: Callable[[str, str, Mapping[str, object]], Preset]
    cached: Callable[[str, str], Path | None]
    fetch: Callable[[str, str], None]
    renamed: Callable[[str, str, dict[str, Tensor]], dict[str, Tensor]]


SOURCES: dict[str, Source] = {
    name: Source(module.preset, module.cached, module.fetch, module.renamed)
    for name, module in (("torchvision", torchvision_weights), ("timm", timm_weights), ("package", packages))
}


def is_published(weights: object) -> bool:
    """Is this the name of published weights, rather than the place of a file?"""
    return isinstance(weights, str) and weights.partition(":")[0] in SOURCES and ":" in weights


def published_preset(weights: str, arch: str, options: Mapping[str, object] | None = None) -> Preset:
    """What is known of published weights of `arch`, built with `options`; ValueError for names that there are not."""
    source, tag = _split(weights)
    return source.preset(arch, tag, options or {})


def published_file(weights: str, arch: str, *, fetch: bool) -> Path:
    """The file that published weights are in, in the cache of the library that publishes them.

    `fetch`: get it through that library where it is not there. ValueError says that it is not to be had.
    """
    source, tag = _split(weights)
    found, why = source.cached(arch, tag), "and a plan fetches nothing"
    if found is None and fetch:
        try:
            source.fetch(arch, tag)
        except Exception as error:  # a library without its network raises errors of its own, its server's and its hub's
            why = f"and cannot be fetched ({_first_line(error)})"
        found = source.cached(arch, tag)
    if found is None:
        raise Refusal(
            f"{weights}: the weights of {arch} are not on this machine {why}; {source.preset(arch, tag, {}).how}"
        )
    return found


def read_published(weights: str, arch: str, file: Path) -> dict[str, Tensor]:
    """The tensors of published weights by the names of the network; ValueError unless every number is finite."""
    source, tag = _split(weights)
    return source.renamed(arch, tag, read_given_weights(file).tensors)


def _split(weights: str) -> tuple[Source, str]:
    name, _, tag = weights.partition(":")
    return SOURCES[name], tag


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
