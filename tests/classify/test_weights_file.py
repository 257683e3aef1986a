"""Weights of users: the forms that are read, and what is said of those that do not fit."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from classify.models import MODELS, build
from classify.weights_file import _without_prefixes, load_weights, read_given_weights


def network(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


def prefixed(state, prefix="module."):
    return {prefix + name: tensor for name, tensor in state.items()}


FORMS = {
    "plain": lambda state: state,
    "parallel": prefixed,
    "state_dict": lambda state: {"state_dict": prefixed(state), "epoch": 3, "best": 93.1},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}, "epoch": 1},
    "net": lambda state: {"net": prefixed(state), "acc": 93.1},
    "lightning": lambda state: {"state_dict": prefixed(state, "model."), "hyper_parameters": {"lr": 0.1}},
    "backbone": lambda state: prefixed(state, "backbone."),
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled and parallel": lambda state: {"model": {"state_dict": prefixed(state, "module._orig_mod.backbone.")}},
    "averages alone": lambda state: {"model_ema": {**prefixed(state), "n_averaged": torch.tensor(3)}},
    "averages beside": lambda state: {"state_dict": state, "state_dict_ema": {n: t + 1 for n, t in state.items()}},
    "a name like the network": lambda state: {"state_dict": state, "model": "resnet50"},
}
NOTES = {
    "plain": (),
    "parallel": ("'module.' taken off the names",),
    "lightning": ("taken from 'state_dict'", "'model.' taken off the names"),
    "compiled and parallel": (
        "taken from 'model'",
        "taken from 'model.state_dict'",
        "'module._orig_mod.backbone.' taken off the names",
    ),
    "averages beside": ("taken from 'state_dict'; not the moving averages in 'state_dict_ema'",),
}


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_are_unwrapped(tmp_path, form):
    state = network().state_dict()
    torch.save(FORMS[form](state), tmp_path / "w.pth")
    found = read_given_weights(tmp_path / "w.pth").tensors
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("form", NOTES)
def test_what_was_taken_off_is_said(tmp_path, form):
    torch.save(FORMS[form](network().state_dict()), tmp_path / "w.pth")
    assert read_given_weights(tmp_path / "w.pth").notes == NOTES[form]


def test_two_networks_in_one_file_are_refused(tmp_path):
    state = network().state_dict()
    torch.save({"model": state, "net": state}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: weights are in it as 'model' and 'net': which are meant"):
        read_given_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_numbers_that_are_not_finite_are_refused(tmp_path, number, dtype):
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in network().state_dict().items()}
    state["1.running_var"][2] = number
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: numbers that are not finite .* in 1 tensors: 1\.running_var"):
        read_given_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_and_said(tmp_path, dtype):
    torch.save({name: t.to(dtype) for name, t in network().state_dict().items()}, tmp_path / "w.pth")
    found = read_given_weights(tmp_path / "w.pth")
    assert found.notes == (f"converted from {str(dtype).removeprefix('torch.')} to float32",)
    assert {t.dtype for t in found.tensors.values()} == {torch.float32}


def test_a_double_beyond_float32_is_refused(tmp_path):
    torch.save({"a": torch.tensor([1e300], dtype=torch.float64)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="not finite"):
        read_given_weights(tmp_path / "w.pth")


def test_weights_in_integers_are_refused(tmp_path):
    state = network().state_dict()
    state["0.weight"] = (state["0.weight"] * 127).to(torch.int8)
    with pytest.raises(ValueError, match=r"1 of another type: 0\.weight int8"):
        load_weights(network(), state, source="w.pth")


def test_a_sparse_tensor_is_refused(tmp_path):
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="a: not a dense tensor"):
        read_given_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    save_file(prefixed(network().state_dict()), tmp_path / name)
    assert read_given_weights(tmp_path / name).tensors.keys() == network().state_dict().keys()


def test_prefix_of_some_names_only_is_left(tmp_path):
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "w.pth")
    assert set(read_given_weights(tmp_path / "w.pth").tensors) == {"module.a", "b"}


def test_pickled_module_is_refused_in_one_sentence(tmp_path):
    torch.save(network(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds more than tensors and plain values") as caught:
        read_given_weights(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content"), [("w.pth", b"nonsense"), ("w.pth", b""), ("w.safetensors", b"{}")])
def test_damaged_files_are_refused_in_one_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="not readable as") as caught:
        read_given_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"epoch": 3}, "epoch is no tensor"),
        ({"lr": 0.1, "epoch": 3}, "lr, epoch are no tensor"),
        ({}, "no weights in it"),
        ([torch.zeros(1)], "no weights in it"),
    ],
)
def test_files_without_weights_are_refused(tmp_path, data, words):
    torch.save(data, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=words):
        read_given_weights(tmp_path / "w.pth")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"w\.pth: there is no such file of weights"):
        read_given_weights(tmp_path / "w.pth")


def test_weights_that_fit_are_loaded():
    model, other = network(), network()
    load_weights(model, other.state_dict(), source="w.pth")
    assert torch.equal(model[0].weight, other[0].weight)


def test_old_checkpoints_lack_the_batch_counters():
    model, state = network(), network().state_dict()
    del state["1.num_batches_tracked"]
    load_weights(model, state, source="w.pth")
    assert torch.equal(model[0].weight, state["0.weight"])


def test_what_does_not_fit_is_listed_and_nothing_is_loaded():
    model = network()
    before = model[1].weight.detach().clone()
    state = {name: tensor + 1 for name, tensor in network(5).state_dict().items()}
    state["fc.weight"] = state.pop("2.bias")
    with pytest.raises(ValueError) as caught:
        load_weights(model, state, source="w.pth")
    assert str(caught.value) == (
        "w.pth: the weights do not fit the network; 1 missing: 2.bias; 1 unexpected: fc.weight; 7 of another shape: "
        "0.weight (5, 3, 3, 3) instead of (4, 3, 3, 3), 0.bias (5,) instead of (4,), 1.weight (5,) instead of (4,)"
        " and 4 more"
    )
    assert torch.equal(model[1].weight, before)


DEPTHS = {
    "cifar_resnet": {"depth": 20},
    "imagenet_resnet": {"depth": 18},
    "cifar_preresnet": {"depth": 29},
    "cifar_densenet": {"depth": 40},
}


@pytest.mark.parametrize("name", MODELS)
def test_no_network_has_a_prefix_of_wrappers_of_its_own(name):
    with torch.device("meta"):
        state = build(name, 10, DEPTHS.get(name)).state_dict()
    assert _without_prefixes(dict(state), []).keys() == state.keys()
