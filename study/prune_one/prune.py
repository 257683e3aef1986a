"""Prune one network, without a study: what `tools/prune.py` calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from classify.calibration import check_fit
from classify.models import arch, build, channel_groups, example_input, get_model, trace_input
from classify.weights_file import load_weights, read_given_weights
from pruning.cost import count_macs, count_params, masked_costs
from pruning.cut import Pruned, prune
from pruning.design.pattern import Pattern
from pruning.design.widths_and_masks import Dense, pattern_of
from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.masks import Masks
from pruning.methods import Calibration, get_method
from pruning.select import Selection
from pruning.targets import Target, prune_to_shape, scratch_b_epochs
from study.prune_one.chart import draw_channels, panels
from study.prune_one.job import PruneJob
from study.stages.given_weights import normalization_of, without_training_only
from study.stages.network import save_weights
from study.stages.prune import pruning_facts
from study.stages.store import RunDir
from training.files import check_output_folder, file_digest, whole_folder, write_bytes, write_text
from training.options import check_level, read_method_options

MASKS, PICTURE, PATTERN = "masks.safetensors", "channels.png", "pattern.json"
BASE_EPOCHS = 160
# of the projection on a ResNet's shortcut; the released ThiNet and regression networks have it, torchvision's do not
_PROJECTION_BIAS = ".downsample.0.bias"
_COUNTER = "num_batches_tracked"  # may be missing, see `load_weights`
_LARGEST_SMALL_INPUT = 32  # pixels; networks for such images have ten classes by default, the others a thousand


@dataclass(frozen=True)
class _Dense:
    """The network before pruning, its channel groups, one input (1, C, H, W) of its size, notes on given weights."""

    arch: str
    options: Mapping[str, Any]
    num_classes: int
    model: nn.Module
    groups: Sequence[Group]
    example: Tensor
    notes: tuple[str, ...] = ()


def prune_alone(job: PruneJob) -> dict[str, Any]:
    """Prune, write plan, weights, masks and picture into `job.out`, and return what there is to say in one line.

    Nothing is written unless all went well; ValueError for what cannot be done.
    """
    check_output_folder(job.out, force=job.force)
    target = job.published()
    dense = _dense_network(job, target)
    pruned = _prune(job, target, dense)
    summary = _summary(job, target, dense, pruned)
    picture = draw_channels(_title(job, dense), panels(dense.model, pruned.model, pruned.plan, pruned.masks))
    known = RunDir(job.out)
    pattern = _pattern(dense, pruned)
    names = frozenset({known.plan.name, known.weights.name, MASKS, PICTURE, PATTERN})
    with whole_folder(job.out, known=names) as folder:
        save_weights(RunDir(folder).weights, pruned.model)
        if pruned.masks:
            write_bytes(folder / MASKS, Masks(pruned.masks).to_bytes())
        write_bytes(folder / PICTURE, picture)
        if pattern is not None:
            write_text(folder / PATTERN, pattern.to_json())
        write_text(RunDir(folder).plan, pruned.plan.to_json())
    return summary


def _dense_network(job: PruneJob, target: Target | None) -> _Dense:
    """The network to prune: random weights drawn by the seed, or the user's."""
    name = target.arch if target else job.arch
    if name is None:
        raise Refusal("--method needs --arch, the network to prune (--list names all)")
    options = {**(target.options if target else {}), **job.arch_options}
    small_images = get_model(name).input_size <= _LARGEST_SMALL_INPUT
    num_classes = job.num_classes or (10 if small_images else 1000)
    given = None if job.weights is None else without_training_only(read_given_weights(job.weights), name)
    torch.manual_seed(job.seed)
    model = build(name, num_classes, options)
    if given is not None:
        try:
            load_weights(model, given.tensors, source=str(job.weights))
        except ValueError as error:
            built = f"{name} with {num_classes} classes" + (f" and {options}" if options else "")
            hint = _only_projection_biases(model, given.tensors) or "see --num-classes and --arch-options"
            raise Refusal(f"{error} (built: {built}; {hint})") from error
    unstructured = job.method is not None and get_method(job.method).unstructured(_options(job))
    groups = [] if unstructured else channel_groups(name, model.eval(), trace_input(name, options))
    notes = () if given is None else given.notes
    return _Dense(name, options, num_classes, model, groups, example_input(name, options), notes)


def _only_projection_biases(model: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """What to say where biases of projections are all that keeps weights from fitting `model`; else None."""
    wanted = model.state_dict()
    names = {name for name in wanted.keys() ^ weights.keys() if not name.endswith(_COUNTER)}
    same_shapes = all(wanted[name].shape == weights[name].shape for name in wanted.keys() & weights.keys())
    if not (names and same_shapes and all(name.endswith(_PROJECTION_BIAS) for name in names)):
        return None
    if names <= wanted.keys():
        return "only because the projections of these weights have no bias: add --arch-options projection_bias=false"
    return "only because the projections of these weights have biases: add --arch-options projection_bias=true"


def _prune(job: PruneJob, target: Target | None, dense: _Dense) -> Pruned:
    name = arch(dense.arch, dense.options)
    generator = torch.Generator().manual_seed(job.seed)
    # masked and small network are compared on it; of full size, because budgets of MACs are counted on it, too
    batch = torch.randn(2, *dense.example.shape[1:], generator=generator)
    if target is not None:
        return prune_to_shape(dense.model, name, dense.groups, target, batch=batch)
    assert job.method is not None
    return prune(
        dense.model,
        name,
        dense.groups,
        job.method,
        _selection(job),
        batch=batch,
        seed=job.seed,
        options=_options(job),
        calibration=_calibration(job, dense),
        allow_partial=job.allow_partial,
    )


def _options(job: PruneJob) -> Any:
    assert job.method is not None
    return read_method_options(job.method, job.options)


def _selection(job: PruneJob) -> Selection:
    assert job.method is not None
    if "level" in job.selection:
        check_level(job.method, read_method_options(job.method, job.options), job.selection["level"])
    if "ratio" in job.selection:
        return Selection(**job.selection)
    if "layers" not in job.selection and get_method(job.method).sets_amount(_options(job)) == "selection":
        raise Refusal(f"method {job.method!r} needs --ratio, the fraction to remove, or --layer, ratios by layer")
    return Selection(**{**job.selection, "ratio": 0.0})


def _calibration(job: PruneJob, dense: _Dense) -> Calibration | None:
    assert job.method is not None
    needs = get_method(job.method).needs
    if needs == "nothing":
        return None
    if job.data is None:
        raise Refusal(f"method {job.method!r} looks at {needs}, which needs --data, a data set or a folder")
    data = job.data.open(image_size=dense.example.shape[-1], seed=job.seed)
    check_fit(dense.model, dense.example, dense.num_classes, data)
    wanted = _normalization(job, dense)
    return (data if wanted is None else replace(data, mean=wanted["mean"], std=wanted["std"])).loss()


def _normalization(job: PruneJob, dense: _Dense) -> dict[str, Any] | None:
    """What the images of `job.data` are normalised by where the weights want another normalisation than theirs."""
    if job.weights is None or job.data is None:
        return None
    return normalization_of(job.weights, dense.arch, dense.options)


def _summary(job: PruneJob, target: Target | None, dense: _Dense, pruned: Pruned) -> dict[str, Any]:
    """Names, sizes and the epochs of equal compute."""
    removed: dict[str, Any] = (
        {"target": job.target} if target else {"method": job.method, "ratio": _selection(job).ratio}
    )
    if "layers" in job.selection:
        removed["layers"] = dict(job.selection["layers"])
    params, macs = count_params(pruned.model), count_macs(pruned.model, dense.example)
    dense_params, dense_macs = _budget(target, dense)
    dense_now = count_params(dense.model), count_macs(dense.model, dense.example)
    left = _left(dense, pruned) if pruned.masks else {}
    base_epochs = job.base_epochs or (target.base_epochs if target else BASE_EPOCHS)
    cap = job.cap or (target.cap if target else None)
    return {
        "arch": dense.arch,
        "arch_options": dict(dense.options),
        "num_classes": dense.num_classes,
        **removed,
        "seed": job.seed,
        **({"weights": {"sha256": file_digest(job.weights), "notes": list(dense.notes)}} if job.weights else {}),
        "params": params,
        "macs": macs,
        "dense_params": dense_params,
        "dense_macs": dense_macs,
        **left,
        "base_epochs": base_epochs,
        "cap": cap,
        "scratch_b_epochs": scratch_b_epochs(base_epochs, dense_macs, left.get("effective_macs", macs), cap=cap),
        **({"normalization": wanted} if (wanted := _normalization(job, dense)) else {}),
        **pruning_facts(pruned, {"params": dense_now[0], "macs": dense_now[1]}, {"params": params, "macs": macs}),
        "out": str(job.out),
    }


def _budget(target: Target | None, dense: _Dense) -> tuple[int, int]:
    """Params and MACs of the network whose cost is the budget: the dense one, unless the target names another."""
    model = dense.model
    if target is not None and target.dense_options is not None and target.dense_options != target.options:
        with torch.device("meta"):  # no time for random weights: only the shape is asked
            model = build(dense.arch, dense.num_classes, target.dense_options)
        model.to_empty(device="cpu")
    return count_params(model), count_macs(model, dense.example)


def _left(dense: _Dense, pruned: Pruned) -> dict[str, Any]:
    """Sizes when a masked weight counts as no parameter and no multiply-add, and the kept share of what was masked."""
    masks = Masks(pruned.masks)
    params, macs = masked_costs(pruned.model, masks, dense.example)
    return {"effective_params": params, "effective_macs": macs, "density": masks.density()}


def _pattern(dense: _Dense, pruned: Pruned) -> Pattern | None:
    """What other networks are designed from; None where nothing but whole blocks is gone."""
    if not (pruned.masks or pruned.plan.keep or pruned.plan.select):
        return None
    return pattern_of(pruned.plan, Dense(dense.model, dense.groups, dense.example), Masks(pruned.masks))


def _title(job: PruneJob, dense: _Dense) -> str:
    if job.target is not None:
        return f"{job.target}, from {dense.arch}"
    ratio = f", ratio {job.selection['ratio']}" if "ratio" in job.selection else ""
    return f"{dense.arch}, {job.method}{ratio}"
