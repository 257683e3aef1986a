"""Prune one network, without a study: what `prune-transfer prune` calls."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classify.calibration import ImageSource, check_fit
from classify.models import arch, build, channel_groups, example_input, get_model, stages_of, trace_input
from classify.published import published_file, published_preset, read_published
from classify.published.preset import Preset
from classify.weights_file import GivenWeights, load_weights, read_given_weights
from pruning.cost import count_macs, count_params, masked_costs
from pruning.cut import Pruned, prune
from pruning.design.pattern import Pattern
from pruning.design.widths_and_masks import Dense, pattern_of
from pruning.errors import Refusal
from pruning.graph.members import Group
from pruning.masks import Masks
from pruning.methods import Calibration, MethodOptions, get_method
from pruning.select import Selection, check_stages
from pruning.targets import Target, get_target, prune_to_shape, scratch_b_epochs
from study.config.schema import PruneConfig
from study.config.sections import Machine
from study.plan.checks import check_device
from study.prune_one.chart import draw_channels, panels
from study.stages.given_weights import SaidNormalization, normalization_of, without_training_only
from study.stages.network import save_weights
from study.stages.prune import pruning_facts
from study.stages.stage import device_of
from study.stages.store import RunDir
from training.files import check_output_folder, file_digest, whole_folder, write_bytes, write_text
from training.options import read_method_options
from training.run_files import NORMALIZATION

MASKS, PICTURE, PATTERN = "masks.safetensors", "channels.png", "pattern.json"
BASE_EPOCHS = 160
# of the projection on a ResNet's shortcut; the released ThiNet and regression networks have it, torchvision's do not
_PROJECTION_BIAS = ".downsample.0.bias"
_COUNTER = "num_batches_tracked"  # may be missing, see `load_weights`
_LARGEST_SMALL_INPUT = 32  # pixels; networks for such images have ten classes by default, the others a thousand


@dataclass(frozen=True)
class _Dense:
    """The network before pruning, its channel groups, one input (1, C, H, W) of its size, what its weights are."""

    arch: str
    options: Mapping[str, object]
    num_classes: int
    model: nn.Module
    groups: Sequence[Group]
    example: Tensor
    weights: Mapping[str, object] = field(default_factory=dict)


def prune_alone(config: PruneConfig, out: Path, *, force: bool = False) -> dict[str, object]:
    """Prune, write plan, weights, masks and picture into `out`, and return what there is to say in one line.

    Nothing is written unless all went well; ValueError for what cannot be done. `force`: files in `out` are replaced.
    """
    check_output_folder(out, force=force)
    machine = Machine(device=config.device)
    check_device(machine, "device")
    target = _target(config)
    dense = _dense_network(config, target)
    pruned = _prune(config, target, dense, device_of(machine))
    summary = _summary(config, target, dense, pruned) | {"out": str(out)}
    picture = draw_channels(_title(config, dense), panels(dense.model, pruned.model, pruned.plan, pruned.masks))
    known = RunDir(out)
    pattern = _pattern(dense, pruned)
    names = frozenset({known.plan.name, known.weights.name, MASKS, PICTURE, PATTERN})
    with whole_folder(out, known=names) as folder:
        save_weights(RunDir(folder).weights, pruned.model, _header(config, dense))
        if pruned.masks:
            write_bytes(folder / MASKS, Masks(pruned.masks).to_bytes())
        write_bytes(folder / PICTURE, picture)
        if pattern is not None:
            write_text(folder / PATTERN, pattern.to_json())
        write_text(RunDir(folder).plan, pruned.plan.to_json())
    return summary


def _target(config: PruneConfig) -> Target | None:
    """The published shape that is asked for, of the architecture that is; ValueError unless it, or a method, is."""
    prune, arch = config.prune, config.classifier.arch
    if (prune.target is None) == ("method" not in prune.model_fields_set):
        raise Refusal("give either --target, or --method with --ratio, --target-macs or --target-params (see --list)")
    if prune.target is None:
        return None
    target = get_target(prune.target)
    if arch not in (None, target.arch):
        raise Refusal(f"target {prune.target!r} is made from {target.arch}, not from {arch}")
    return target


def _dense_network(config: PruneConfig, target: Target | None) -> _Dense:
    """The network to prune: random weights drawn by the seed, or the user's."""
    asked = config.classifier
    name = target.arch if target else asked.arch
    if name is None:
        raise Refusal("--method needs --arch, the network to prune (--list names all)")
    options = {**(target.options if target else {}), **asked.options}
    small_images = get_model(name).input_size <= _LARGEST_SMALL_INPUT
    preset = published_preset(asked.weights, name, options) if isinstance(asked.weights, str) else None
    num_classes = asked.num_classes or (preset.num_classes if preset else 10 if small_images else 1000)
    given, about = (None, {}) if asked.weights is None else _read_weights(asked.weights, name, preset)
    torch.manual_seed(config.seed)
    model = build(name, num_classes, options)
    if given is not None:
        try:
            load_weights(model, given.tensors, source=str(asked.weights))
        except ValueError as error:
            built = f"{name} with {num_classes} classes" + (f" and {options}" if options else "")
            hint = _only_projection_biases(model, given.tensors) or "see --num-classes and --arch-options"
            raise Refusal(f"{error} (built: {built}; {hint})") from error
    unstructured = target is None and get_method(config.prune.method).unstructured(_options(config))
    groups = [] if unstructured else channel_groups(name, model.eval(), trace_input(name, options))
    return _Dense(name, options, num_classes, model, groups, example_input(name, options), about)


def _read_weights(weights: Path | str, arch: str, preset: Preset | None) -> tuple[GivenWeights, dict[str, object]]:
    """The tensors of a file or of published weights, which are fetched, and what there is to say of them."""
    named: dict[str, object] = {}
    if isinstance(weights, Path):
        file, given = weights, read_given_weights(weights)
    else:
        assert preset is not None
        file, named = published_file(weights, arch, fetch=True), {"name": preset.name}
        given = GivenWeights(read_published(weights, arch, file), ())
    given = without_training_only(given, arch)
    return given, {**named, "sha256": file_digest(file), "notes": list(given.notes)}


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


def _prune(config: PruneConfig, target: Target | None, dense: _Dense, device: str) -> Pruned:
    name = arch(dense.arch, dense.options)
    generator = torch.Generator().manual_seed(config.seed)
    # masked and small network are compared on it; of full size, because budgets of MACs are counted on it, too
    batch = torch.randn(2, *dense.example.shape[1:], generator=generator).to(device)
    model = copy.deepcopy(dense.model).to(device)
    if target is not None:
        return prune_to_shape(model, name, dense.groups, target, batch=batch).cpu()
    check_stages(_selection(config), len(stages_of(dense.arch)))
    return prune(
        model,
        name,
        dense.groups,
        config.prune.method,
        _selection(config),
        batch=batch,
        seed=config.seed,
        options=_options(config),
        calibration=_calibration(config, dense),
        allow_partial=config.prune.allow_partial,
    ).cpu()


def _options(config: PruneConfig) -> MethodOptions:
    return read_method_options(config.prune.method, config.prune.options)


def _selection(config: PruneConfig) -> Selection:
    """The selection asked for; without an amount nothing goes but what --layer names or the method's options ask."""
    prune = config.prune
    selection = prune.selection()
    if "ratio" in prune.model_fields_set or selection.cost_target is not None:
        return selection
    if not prune.layers and get_method(prune.method).sets_amount(_options(config)) == "selection":
        raise Refusal(
            f"method {prune.method!r} needs --ratio, the fraction to remove, or --layer, ratios by layer, or"
            " --target-macs or --target-params, the share to leave"
        )
    return replace(selection, ratio=0.0)


def _calibration(config: PruneConfig, dense: _Dense) -> Calibration | None:
    method, dataset = config.prune.method, config.classifier.dataset
    needs = get_method(method).needs
    if needs == "nothing":
        return None
    if dataset is None:
        raise Refusal(f"method {method!r} looks at {needs}, which needs --data, a data set or a folder")
    wanted = config.prune.calibration
    if isinstance(dataset, Path):
        source = ImageSource(str(dataset), n_images=wanted.images, per_class=wanted.per_class)
    else:
        source = ImageSource(dataset.name, dataset.options, wanted.images, dataset.seed, wanted.per_class)
    data = source.open(image_size=dense.example.shape[-1], seed=config.seed)
    check_fit(dense.model, dense.example, dense.num_classes, data)
    said = _normalization(config, dense)
    return (data if said is None else replace(data, mean=said["mean"], std=said["std"])).losses()


def _header(config: PruneConfig, dense: _Dense) -> dict[str, str] | None:
    """What the file of weights says of the network's input, where that came with the given weights."""
    weights = config.classifier.weights
    wanted = None if weights is None else normalization_of(weights, dense.arch, dense.options)
    return None if wanted is None else {NORMALIZATION: json.dumps({key: wanted[key] for key in ("mean", "std")})}


def _normalization(config: PruneConfig, dense: _Dense) -> SaidNormalization | None:
    """What images to look at are normalised by where the weights want another normalisation than theirs."""
    asked = config.classifier
    if asked.weights is None or asked.dataset is None:
        return None
    return normalization_of(asked.weights, dense.arch, dense.options)


def _summary(config: PruneConfig, target: Target | None, dense: _Dense, pruned: Pruned) -> dict[str, object]:
    """Names, sizes and the epochs of equal compute."""
    prune, asked = config.prune, config.classifier
    removed: dict[str, object] = {"target": prune.target} if target else {"method": prune.method, **_amount(config)}
    if prune.layers:
        removed["layers"] = dict(prune.layers)
    params, macs = count_params(pruned.model), count_macs(pruned.model, dense.example)
    dense_params, dense_macs = _budget(target, dense)
    dense_now = count_params(dense.model), count_macs(dense.model, dense.example)
    left = _left(dense, pruned) if pruned.masks else None
    counted = left["effective_macs"] if left else macs
    base_epochs = asked.train.epochs or (target.base_epochs if target else BASE_EPOCHS)
    cap = asked.scratch_b_cap or (target.cap if target else None)
    return {
        "arch": dense.arch,
        "arch_options": dict(dense.options),
        "num_classes": dense.num_classes,
        **removed,
        "seed": config.seed,
        **({"weights": dense.weights} if dense.weights else {}),
        "params": params,
        "macs": macs,
        "dense_params": dense_params,
        "dense_macs": dense_macs,
        **(left or {}),
        "base_epochs": base_epochs,
        "cap": cap,
        "scratch_b_epochs": scratch_b_epochs(base_epochs, dense_macs, counted, cap=cap),
        **({"normalization": wanted} if (wanted := _normalization(config, dense)) else {}),
        **pruning_facts(pruned, {"params": dense_now[0], "macs": dense_now[1]}, {"params": params, "macs": macs}),
    }


def _amount(config: PruneConfig) -> dict[str, object]:
    """How much is removed, by the word that says it: the ratio that a target came to is among what was achieved."""
    selection = _selection(config)
    if selection.cost_target is None:
        return {"ratio": selection.ratio}
    quantity, share = selection.cost_target
    return {f"target_{quantity}": share}


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


def _title(config: PruneConfig, dense: _Dense) -> str:
    prune = config.prune
    if prune.target is not None:
        return f"{prune.target}, from {dense.arch}"
    amount = [f", {name} {value}" for name, value in _amount(config).items() if name in prune.model_fields_set]
    return f"{dense.arch}, {prune.method}{''.join(amount)}"
