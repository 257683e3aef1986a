"""From scores of single weights to masks: exact counts, over the whole network or per layer."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from pruning.errors import Refusal
from pruning.graph.layers import shared_parameters
from pruning.masks import Masks
from pruning.seeds import random_stream
from pruning.select import Selection, count_to_keep, given_ratio


def conv_weights(model: nn.Module, selection: Selection, *, linear: bool = False) -> dict[str, Tensor]:
    """The convolution weights that `selection` covers, by parameter name, in the order of the modules.

    For single weights `skip` and `layers` match the names of layers, and the coupling of channels (`scope`) does
    not matter. Linear layers stay dense unless `linear`. Raises ValueError for what has no meaning for single weights.
    """
    if len(selection.stage_ratios()) > 1 or selection.round_to > 1:
        raise Refusal("single weights take one ratio, or ratios by layer; no ratio by stage and no `round_to`")
    kinds = (nn.Conv2d, nn.Linear) if linear else (nn.Conv2d,)
    what = "convolution or linear layer" if linear else "convolution"
    layers = {name: m.weight.detach() for name, m in model.named_modules() if isinstance(m, kinds)}
    for pattern in [*selection.skip, *(selection.layers or {})]:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise Refusal(f"no {what} matches {pattern!r}; there are: {', '.join(layers)}")
    left = {f"{n}.weight": w for n, w in layers.items() if not selection.skips(n)}
    if not left:
        raise Refusal(f"nothing to prune: the network has no {what} that is not skipped")
    for pattern in selection.layers or {}:
        if not any(fnmatchcase(name.removesuffix(".weight"), pattern) for name in left):
            raise Refusal(f"layers: {pattern!r} asks a ratio of layers that `skip` leaves whole; drop one of the two")
    _check_own(model, left)
    return left


def _check_own(model: nn.Module, names: Iterable[str]) -> None:
    """ValueError for a weight that layers share: a ratio of one's weights would be another one of the other's."""
    shared = shared_parameters(model)
    for name in names:
        if name in shared:
            owners = sorted(other.removesuffix(".weight") for other in shared[name])
            raise Refusal(f"{' and '.join(owners)} share one weight, which cannot lose a share for each; `skip` them")


def random_scores(name: str, weight: Tensor, seed: int) -> Tensor:
    """A number in [0, 1) for each weight, from the seed and the parameter's name."""
    return torch.rand(weight.shape, generator=random_stream(seed, name)).to(weight.device)


def magnitudes(weights: Mapping[str, Tensor], left: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """|w| of every weight, and -1 of those that the masks `left` have removed; empty ones remove none.

    ValueError for masks of other parameters.
    """
    if left and left.keys() != weights.keys():
        odd = ", ".join(sorted(left.keys() ^ weights.keys()))
        raise Refusal(f"the training before removed weights of other layers than those to prune: {odd}")
    return {
        name: weight.abs().masked_fill(~left[name].to(weight.device), -1) if left else weight.abs()
        for name, weight in weights.items()
    }


def check_subset(chosen: Mapping[str, Tensor], left: Mapping[str, Tensor]) -> None:
    """ValueError where `chosen` keeps weights that the masks `left` have removed; empty ones remove none."""
    for name, mask in left.items():
        if bool((chosen[name] & ~mask.to(chosen[name].device)).any()):
            raise Refusal(f"the training before left fewer weights of {name} than the ratio keeps; ask for as many")


def keep_largest(scores: Mapping[str, Tensor], n_keep: int) -> Masks:
    """Keep exactly the `n_keep` highest scores of all tensors together; ties keep the earlier layer, the lower index.

    The best weight of each tensor is out of reach, so that no layer is cut through.
    """
    pooled, sizes = _pooled(scores)
    if not len(sizes) <= n_keep <= pooled.numel():
        raise Refusal(f"{n_keep} weights cannot be kept: there are {pooled.numel()} in {len(sizes)} layers")
    # `split` gives views: this writes into `pooled`, which is a copy of the scores
    for part in pooled.split(sizes):
        part[part.argmax()] = torch.inf  # argmax is the first of equals
    # The score of the last that stays; of those that share it, as many of the first as there is room for. Selecting one
    # rank takes linear time where sorting 10^8 weights would not. It also holds where only the best of each layer stay:
    # nothing is above infinity, and all ties are kept.
    cut = pooled.kthvalue(pooled.numel() - n_keep + 1).values
    kept = pooled > cut
    ties = (pooled == cut).nonzero().flatten()
    kept[ties[: n_keep - int(kept.sum())]] = True
    return _unpooled(kept, sizes, scores)


def keep_above(scores: Mapping[str, Tensor], n_remove: int) -> Masks:
    """Keep what lies strictly above the score of ascending rank `n_remove` (from 0): one more goes than asked.

    The rule of the study's released code; ties at the cut all go, and so may a whole layer.
    """
    pooled, sizes = _pooled(scores)
    return _unpooled(pooled > pooled.kthvalue(n_remove + 1).values, sizes, scores)


def keep_per_layer(scores: Mapping[str, Tensor], selection: Selection) -> Masks:
    """Keep the highest scores of each tensor, as many as its ratio leaves."""
    masks: dict[str, Tensor] = {}
    for name, score in scores.items():
        n_keep = count_to_keep(score.numel(), ratio_of(name, selection))
        if n_keep < 1:
            raise Refusal(f"ratio {ratio_of(name, selection)} leaves none of the {score.numel()} weights of {name}")
        masks |= keep_largest({name: score}, n_keep)
    return Masks(masks)


def shuffled(masks: Masks, seed: int) -> Masks:
    """As many weights of each parameter, drawn at random: the control that tells a layer's share from its choice.

    Su et al., Sanity-Checking Pruning Methods: Random Tickets can Win the Jackpot, NeurIPS 2020 (arXiv 2009.11094),
    section 3 (layerwise rearrange). Each parameter draws from the seed and its own name.
    """
    drawn = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=random_stream(seed, name)).to(mask.device)
        kept = torch.zeros_like(mask.flatten())
        kept[order[: int(mask.sum())]] = True
        drawn[name] = kept.view(mask.shape)
    return Masks(drawn)


def ratio_of(parameter: str, selection: Selection) -> float:
    """The fraction that `selection` removes from the weight of a layer."""
    own = given_ratio(parameter.removesuffix(".weight"), selection.layers or {})
    return selection.stage_ratios()[0] if own is None else own


def _pooled(scores: Mapping[str, Tensor]) -> tuple[Tensor, list[int]]:
    """All scores in one new tensor, and the size of each part."""
    for name, score in scores.items():
        if not bool(torch.isfinite(score).all()):
            raise Refusal(f"a weight or score of {name} is not finite")
    return torch.cat([score.flatten() for score in scores.values()]), [score.numel() for score in scores.values()]


def _unpooled(kept: Tensor, sizes: list[int], scores: Mapping[str, Tensor]) -> Masks:
    parts = zip(scores.items(), kept.split(sizes), strict=True)
    return Masks({name: part.view(score.shape).clone() for (name, score), part in parts})
