"""Pruning one network from a command: its files, its numbers, its weights, its errors."""

import json
from hashlib import sha256

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import published
from support.pruning_alone import HALF, SMALL, alone

from classify.calibration import CalibrationImages
from classify.kept_network import read_kept
from classify.models import build, example_input, rebuild
from pruning.cost import count_macs, count_params
from pruning.design.pattern import Pattern
from pruning.masks import Masks
from pruning.plan import PruningPlan
from pruning.targets import TARGETS

# the network whose cost is the budget: the dense one, for the released ResNet-50s with their biases
BUDGETS = {
    **published.CIFAR10,
    **published.IMAGENET,
    "resnet50": published.RESNET50_WITH_BIASES,
}
QUICK = ("resnet56-A", "resnet56-B")


@pytest.mark.parametrize(
    "target",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in published.TARGETS],
)
def test_published_targets(tmp_path, target):
    *size, epochs = published.TARGETS[target]
    found = alone(tmp_path / "out", {"target": target})
    assert [found["params"], found["macs"]] == size
    assert (found["dense_params"], found["dense_macs"]) == BUDGETS[TARGETS[target].arch]
    assert found["scratch_b_epochs"] == epochs
    assert found["masked_equals_small"] < 1e-4


def test_files_are_the_network_that_the_numbers_are_of(tmp_path):
    found = alone(tmp_path / "out", HALF, SMALL)
    plan = PruningPlan.load(tmp_path / "out" / "plan.json")
    model = rebuild(plan, found["num_classes"])
    model.load_state_dict(load_file(tmp_path / "out" / "weights.safetensors"))
    assert (count_params(model), count_macs(model, example_input(plan.arch))) == (
        found["params"],
        found["macs"],
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "channels.png",
        "pattern.json",
        "plan.json",
        "weights.safetensors",
    ]


def test_users_weights_are_pruned_and_kept(tmp_path):
    torch.manual_seed(5)
    dense = build("cifar_resnet", 7, SMALL["options"])
    state = {f"module.{name}": tensor for name, tensor in dense.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "mine.pth")
    alone(tmp_path / "out", HALF, {**SMALL, "num_classes": 7, "weights": tmp_path / "mine.pth"})
    small = load_file(tmp_path / "out" / "weights.safetensors")
    kept = list(PruningPlan.load(tmp_path / "out" / "plan.json").keep["layer1.0.conv1"])
    norms = dense.layer1[0].conv1.weight.detach().abs().sum((1, 2, 3))
    assert kept == sorted(norms.argsort(descending=True)[:4].tolist())
    assert torch.equal(small["layer1.0.conv1.weight"], dense.layer1[0].conv1.weight[kept])
    assert torch.equal(small["fc.weight"], dense.fc.weight)


def test_the_folder_is_a_network_with_the_normalisation_of_its_weights(tmp_path):
    torch.manual_seed(5)
    state = build("cifar_resnet", 7, SMALL["options"]).state_dict()
    said = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    save_file(state, tmp_path / "mine.safetensors", {"prune_transfer_normalization": json.dumps(said)})
    alone(tmp_path / "out", HALF, {**SMALL, "num_classes": 7, "weights": tmp_path / "mine.safetensors"})
    kept = read_kept(tmp_path / "out")
    assert {"mean": list(kept.mean), "std": list(kept.std)} == said and not kept.absent
    assert torch.equal(kept.model.fc.bias, state["fc.bias"])


def test_published_weights_are_taken_by_name_with_their_classes_and_normalisation(tmp_path, monkeypatch):
    """From torch.hub's cache, so no network is asked."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    file = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir(parents=True)
    torch.manual_seed(5)
    state = build("squeezenet1_1", 1000).state_dict()
    torch.save(state, file)
    found = alone(tmp_path / "out", HALF, {"arch": "squeezenet1_1", "weights": "torchvision:DEFAULT"})
    assert found["num_classes"] == 1000 and found["params"] < found["dense_params"]
    sum_of_file = sha256(file.read_bytes()).hexdigest()
    assert found["weights"] == {"name": "torchvision:IMAGENET1K_V1", "sha256": sum_of_file, "notes": []}
    kept = read_kept(tmp_path / "out")
    assert kept.mean == (0.485, 0.456, 0.406) and torch.equal(kept.model.classifier[1].bias, state["classifier.1.bias"])


@pytest.mark.parametrize(
    ("arch", "weights", "message"),
    [
        ("resnet18", "torchvision:NOSUCH", "NOSUCH"),
        ("resnet20", "torchvision:DEFAULT", "resnet20"),
        ("resnet18", "package:nosuch", "nosuch"),
    ],
)
def test_published_weights_that_there_are_not_are_refused(tmp_path, arch, weights, message):
    with pytest.raises(ValueError, match=message) as error:
        alone(tmp_path / "out", HALF, {"arch": arch, "weights": weights})
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_seed_draws_the_weights(tmp_path):
    def fc(name, seed):
        alone(tmp_path / name, HALF, SMALL, seed=seed)
        return load_file(tmp_path / name / "weights.safetensors")["fc.weight"]

    first = fc("a", 1)
    assert torch.equal(first, fc("b", 1))
    assert not torch.equal(first, fc("c", 2))


def test_weights_of_another_number_of_classes_say_what_was_built(tmp_path):
    torch.save(build("cifar_resnet", 7, SMALL["options"]).state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ValueError, match=r"fc\.weight \(7, 32\) instead of \(10, 32\).*cifar_resnet with 10 classes"):
        alone(tmp_path / "out", HALF, {**SMALL, "weights": tmp_path / "mine.pth"})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("built", "given", "word"), [(True, False, "no bias"), (False, True, "biases")])
def test_weights_that_differ_in_biases_of_projections_only_say_so(tmp_path, built, given, word):
    """torchvision's ResNet-50 for a ThiNet target, on a small network."""
    small = {"width": 0.125}
    torch.save(build("resnet10", 10, {**small, "projection_bias": given}).state_dict(), tmp_path / "mine.pth")
    network = {"arch": "resnet10", "num_classes": 10, "weights": tmp_path / "mine.pth"}
    other = {**network, "options": {**small, "projection_bias": built}}
    hint = f"projections of these weights have {word}: add --arch-options projection_bias={str(given).lower()}"
    with pytest.raises(ValueError, match=f"do not fit the network.* only because the {hint}"):
        alone(tmp_path / "out", HALF, other)
    with pytest.raises(ValueError, match="see --num-classes and --arch-options"):
        alone(tmp_path / "out", HALF, {**other, "num_classes": 7})
    alone(tmp_path / "out", HALF, {**network, "options": {**small, "projection_bias": given}})


def test_ratios_by_layer_name_the_layers_that_lose_channels(tmp_path):
    layers = {"layer1.*": 0.5, "layer3.0.conv1": 0.25}
    found = alone(tmp_path / "a", {"method": "l1_filter", "layers": layers, "skip": ("layer2.*",)}, SMALL)
    plan = PruningPlan.load(tmp_path / "a" / "plan.json")
    assert plan.kept_counts() == {"layer1.0.conv1": 4, "layer3.0.conv1": 24}
    assert (found["ratio"], found["layers"]) == (0.0, layers)
    alone(tmp_path / "b", {"method": "l1_filter", "layers": layers, "ratio": 0.75}, SMALL)
    plan = PruningPlan.load(tmp_path / "b" / "plan.json")
    assert plan.kept_counts() == {"layer1.0.conv1": 4, "layer2.0.conv1": 4, "layer3.0.conv1": 24}


def test_pattern_of_one_network_guides_another(tmp_path):
    """A DenseNet that selects inputs, then a ResNet that is narrowed: each stage takes the share of its depth."""
    dense = {"arch": "cifar_densenet", "options": {"depth": 10}}
    found = alone(tmp_path / "a", {"method": "slimming", "ratio": 0.5}, dense)
    pattern = Pattern.from_json((tmp_path / "a" / "pattern.json").read_text())
    assert pattern.stages == 3
    options = {"patterns": [str(tmp_path / "a" / "pattern.json")], "budget": {"macs": 0.7}}
    guided = alone(tmp_path / "b", {"method": "guided", "options": options}, SMALL)
    assert guided["macs"] == pytest.approx(0.7 * guided["dense_macs"], rel=0.03)
    back = {"patterns": [str(tmp_path / "b" / "pattern.json")], "budget": {"params": found["params"]}}
    again = alone(tmp_path / "c", {"method": "guided", "options": back}, dense)
    assert again["params"] == pytest.approx(found["params"], rel=0.02)


def test_masks_are_written_and_counted(tmp_path):
    found = alone(tmp_path / "out", {"method": "uniform_weights", "ratio": 0.75}, {"arch": "conv2"})
    # two 3x3 convolutions of 64 channels at 32x32 pixels; linear layers stay dense
    convs = 3 * 64 * 9 + 64 * 64 * 9
    assert found["params"] == found["dense_params"]
    assert found["macs"] - found["effective_macs"] == convs * 3 // 4 * 32 * 32
    assert found["params"] - found["effective_params"] == convs * 3 // 4
    assert found["density"] == 0.25
    assert found["scratch_b_epochs"] == 160 * found["dense_macs"] // found["effective_macs"] > 160
    masks = Masks.load(tmp_path / "out" / "masks.safetensors")
    weights = load_file(tmp_path / "out" / "weights.safetensors")
    assert masks.density() == 0.25
    assert Pattern.from_json((tmp_path / "out" / "pattern.json").read_text()).others == pytest.approx((0.25,), rel=1e-3)
    assert all(not bool(weights[name][~mask].any()) for name, mask in masks.items())


def test_replacing_masks_by_channels_removes_the_masks(tmp_path):
    alone(tmp_path / "out", {"method": "magnitude", "ratio": 0.5}, {"arch": "conv2"})
    with pytest.raises(ValueError, match="exists and is not empty"):
        alone(tmp_path / "out", HALF, SMALL)
    alone(tmp_path / "out", HALF, SMALL, force=True)
    assert not (tmp_path / "out" / "masks.safetensors").exists()


@pytest.mark.parametrize(("method", "macs"), [("l1_filter", "macs"), ("lamp", "effective_macs")])
def test_a_share_of_the_multiply_adds_is_left_and_told(tmp_path, method, macs):
    wide = {"arch": "cifar_resnet", "options": {"depth": 8, "width": 4.0}}
    found = alone(tmp_path / "out", {"method": method, "target_macs": 0.6}, wide)
    assert found["target_macs"] == 0.6 and "ratio" not in found
    reached = found["achieved"]["reached"]
    assert (reached["quantity"], reached["asked"]) == ("macs", 0.6)
    assert reached["left"] == pytest.approx(found[macs] / found["dense_macs"]) == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
def test_methods_that_need_images_see_them(tmp_path, method):
    found = alone(
        tmp_path / "out",
        {"method": method, "ratio": 0.5, "calibration": {"images": 20}},
        {**SMALL, "dataset": {"name": "digits"}},
    )
    assert found["params"] < count_params(build("cifar_resnet", 10, SMALL["options"]))


def test_images_can_be_a_folder(tmp_path):
    for i in range(6):
        folder = tmp_path / "images" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    found = alone(tmp_path / "out", {"method": "thinet", "ratio": 0.5}, {**SMALL, "dataset": tmp_path / "images"})
    assert found["masked_equals_small"] < 1e-4


@pytest.mark.parametrize("source", ["digits", "folder"])
def test_so_many_images_of_each_class(tmp_path, source, monkeypatch):
    seen = []
    losses = CalibrationImages.losses
    monkeypatch.setattr(
        CalibrationImages, "losses", lambda self: seen.extend(self.images.labels.tolist()) or losses(self)
    )
    for i in range(7):
        folder = tmp_path / "images" / "aab"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 50, 3), 30 * i, np.uint8)).save(folder / f"{i}.png")
    dataset = {"name": "digits"} if source == "digits" else tmp_path / "images"
    asked = {"method": "thinet", "ratio": 0.5, "calibration": {"per_class": 2}}
    alone(tmp_path / "out", asked, {**SMALL, "dataset": dataset})
    classes = 10 if source == "digits" else 2
    assert sorted(seen) == sorted([*range(classes)] * 2)


def test_epochs_of_equal_compute_follow_base_and_cap(tmp_path):
    found = alone(tmp_path / "a", HALF, {**SMALL, "train": {"epochs": 1000}})
    assert found["scratch_b_epochs"] == 1000 * found["dense_macs"] // found["macs"] > 1100
    capped = alone(tmp_path / "b", HALF, {**SMALL, "train": {"epochs": 1000}, "scratch_b_cap": 1.1})
    assert (capped["scratch_b_epochs"], capped["cap"]) == (1100, 1.1)


THINET = {"method": "thinet", "ratio": 0.5, "calibration": {"images": 10}}
DIGITS = {"dataset": {"name": "digits"}}
FIRST = {"method": "l1_filter"}
REFUSED = {
    "neither": ({}, {}, "give either --target, or --method with --ratio"),
    "both": ({"target": "resnet56-A", **FIRST}, {}, "give either --target, or --method"),
    "ratio of a target": (
        {"target": "resnet56-A", "ratio": 0.5},
        {},
        "already says .* drop ratio",
    ),
    "option of a target": (
        {"target": "resnet56-A", "method": "uniform", "options": {"criterion": "random"}},
        {},
        "give either --target, or --method",
    ),
    "unknown target": ({"target": "resnet56-C"}, {}, "unknown target 'resnet56-C'; .* choose from vgg16-A"),
    "another network": (
        {"target": "resnet56-A"},
        {"arch": "resnet20"},
        "made from resnet56, not from resnet20",
    ),
    "no network": (HALF, {}, "--method needs --arch"),
    "unknown network": (HALF, {"arch": "resnet21"}, "unknown architecture 'resnet21'"),
    "unknown option": (HALF, {"arch": "resnet20", "options": {"deep": 1}}, "does not take these options"),
    "unknown method": ({"method": "l2", "ratio": 0.5}, {"arch": "resnet20"}, "unknown pruning method"),
    "no ratio": (FIRST, SMALL, "'l1_filter' needs --ratio, the fraction to remove, or --layer"),
    "whole layer": ({**FIRST, "ratio": 0.99}, SMALL, "leaves no channel of 8"),
    "beyond 1": ({**FIRST, "ratio": 1.5}, SMALL, r"prune\.ratio: 1\.5 does not fit; .*less than 1"),
    "unknown layer": ({"method": "random", "ratio": 0.5, "skip": ("x*",)}, SMALL, "no layer matches"),
    "whole layer by name": (
        {**FIRST, "layers": {"layer1.*": 1.0}},
        SMALL,
        r"layer1\.\*: 1\.0 does not fit; .*less than 1",
    ),
    "layer in one ranking": (
        {**FIRST, "layers": {"layer1.*": 0.5}, "level": "global"},
        SMALL,
        "need level 'layer'",
    ),
    "layers of a design": (
        {"method": "uniform", "layers": {"layer1.*": 0.5}},
        SMALL,
        "one ratio for every layer",
    ),
    "no images": (THINET, SMALL, "looks at activations, which needs --data"),
    "no such images": (
        THINET,
        {**SMALL, "dataset": "nowhere"},
        "neither a folder.* nor a data set; .* digits",
    ),
    "no image asked": (
        {**THINET, "calibration": {"images": 0}},
        {**SMALL, **DIGITS},
        r"prune\.calibration\.images: 0 does not fit; .*at least 1",
    ),
    "data option": (
        THINET,
        {**SMALL, "dataset": {"name": "digits", "options": {"size": 1}}},
        "unknown option of data set 'digits' 'size'; .*choose from image_size",
    ),
    "classes": (THINET, {**SMALL, **DIGITS, "num_classes": 3}, "10 classes, .* has 3"),
    "grey network": (
        THINET,
        {"arch": "lenet5", **DIGITS},
        "the images have 3 channels, the network reads 1",
    ),
    "image size": (
        THINET,
        {"arch": "conv2", "dataset": {"name": "digits", "options": {"image_size": 20}}},
        r"made for \(3, 32, 32\), cannot read images of shape \(3, 20, 20\)",
    ),
    "no epochs": ({"target": "resnet56-A"}, {"train": {"epochs": 0}}, r"train\.epochs: 0 does not fit; .*at least 1"),
    "cap": ({"target": "resnet56-A"}, {"scratch_b_cap": 0.5}, r"scratch_b_cap: 0\.5 does not fit; .*at least 1"),
    "no classes": ({"target": "resnet56-A"}, {"num_classes": 0}, r"num_classes: 0 does not fit; .*at least 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, case):
    prune, classifier, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        alone(tmp_path / "out", prune, classifier)
    assert list(tmp_path.iterdir()) == []
