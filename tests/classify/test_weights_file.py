"""Weights of users: the forms that are read, and what is said of those that do not fit."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from classify.weights_file import load_weights, read_weights_file


def network(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


def prefixed(state):
    return {f"module.{name}": tensor for name, tensor in state.items()}


FORMS = {
    "plain": lambda state: state,
    "parallel": prefixed,
    "state_dict": lambda state: {"state_dict": prefixed(state), "epoch": 3, "best": 93.1},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
}


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_are_unwrapped(tmp_path, form):
    state = network().state_dict()
    torch.save(FORMS[form](state), tmp_path / "w.pth")
    found = read_weights_file(tmp_path / "w.pth")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    save_file(prefixed(network().state_dict()), tmp_path / name)
    assert read_weights_file(tmp_path / name).keys() == network().state_dict().keys()


def test_prefix_of_some_names_only_is_left(tmp_path):
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "w.pth")
    assert set(read_weights_file(tmp_path / "w.pth")) == {"module.a", "b"}


def test_pickled_module_is_refused_in_one_sentence(tmp_path):
    torch.save(network(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds more than tensors and plain values") as caught:
        read_weights_file(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content"), [("w.pth", b"nonsense"), ("w.pth", b""), ("w.safetensors", b"{}")])
def test_damaged_files_are_refused_in_one_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="not readable as") as caught:
        read_weights_file(tmp_path / name)
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
        read_weights_file(tmp_path / "w.pth")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"w\.pth: there is no such file of weights"):
        read_weights_file(tmp_path / "w.pth")


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
