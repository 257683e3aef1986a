"""Trainings of compiled networks: as the plain ones but for rounding, under the same names, or refused."""

import json

import pytest
import torch
from support.processes_training import (
    CHANGES,
    SETTINGS,
    Killed,
    effects_of,
    group_fisher,
    images,
    in_two_processes,
    network,
    teacher_of,
)
from support.told import told
from torch import nn

from classify.train import train_classifier
from pruning.errors import Failure
from pruning.methods import Request, get_method
from pruning.select import Selection
from training import compiled
from training.checkpoint import load_checkpoint
from training.device import Precision

pytestmark = pytest.mark.usefixtures("minute_a_step")


@pytest.fixture
def eager_kernels(monkeypatch):
    """Networks are taken apart as for a compiler, which any machine can do, and computed by PyTorch's own kernels."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")


@pytest.fixture
def untried():
    """Whether anything can be compiled is found out anew, before and after."""
    compiled.check_compiler.cache_clear()
    yield
    compiled.check_compiler.cache_clear()


def changing(name):
    """The training effect of a method whose masks change at every third step."""
    entry = get_method(name)
    options = {"end": 1.0} if name == "rigl" else {}
    asked = Request([], Selection(0.5), entry.options(every=3, **options), seed=0)
    return lambda model: [entry.training_effect(model, asked)]


def unnormalised():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


CASES = {name: lambda model, name=name: effects_of(model, name) for name in CHANGES if name != "fisher"}
CASES |= {name: changing(name) for name in ("rigl", "gradual_magnitude")}


def train(name, folder, *, kill_at=None, model=None, **changes):
    """Train a case in `folder`; the network, the losses, and what the training came to."""
    losses = []

    def report(step, total, metrics):
        losses.append(metrics["loss"])
        if step == kill_at:
            raise Killed

    model = model or network()
    folder.mkdir(exist_ok=True)
    outcome = train_classifier(
        model, images(), **told({**SETTINGS, "epochs": 3}, **CHANGES.get(name, {}), **changes), validation=images(5),
        checkpoint=folder / "c.pt", report=report, effects=CASES[name](model), teacher=teacher_of(name),
    )  # fmt: skip
    return model, losses, outcome


def assert_close(ours, theirs, tolerance):
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_training_computes_what_the_plain_one_does(name, tmp_path, eager_kernels):
    plain, losses, outcome = train(name, tmp_path / "plain")
    fast, seen, said = train(name, tmp_path / "compiled", compile=True)
    assert seen == pytest.approx(losses, rel=1e-5)
    assert_close(fast.state_dict(), plain.state_dict(), 1e-5)
    assert not outcome.precision.compiled and said.precision.compiled
    assert said.precision.as_result() == {**outcome.precision.as_result(), "compiled": True}
    assert "forward" not in vars(fast) and type(fast) is nn.Sequential


def test_the_network_is_compiled_where_it_trains_and_nowhere_else(tmp_path, eager_kernels, monkeypatch):
    modes, compile_with = [], torch.compile

    def watched(plain, **options):
        def noted(*inputs):
            modes.append(plain.__self__.training)
            return fast(*inputs)

        fast = compile_with(plain, **options)
        return noted if hasattr(plain, "__self__") else fast

    monkeypatch.setattr(torch, "compile", watched)
    train("plain", tmp_path, compile=True)
    assert modes == [True] * 9  # of 17 images in batches of 8, thrice; the validations are not among them


def test_a_compiled_training_that_was_killed_ends_with_the_same_bits(tmp_path, eager_kernels):
    whole, _, _ = train("effects", tmp_path / "whole", compile=True)
    with pytest.raises(Killed):
        train("effects", tmp_path / "killed", compile=True, kill_at=7)
    saved = load_checkpoint(tmp_path / "killed" / "c.pt", required=["model", "precision"])
    assert saved["precision"] == "float32, compiled" and list(saved["model"]) == list(network().state_dict())
    resumed, _, _ = train("effects", tmp_path / "killed", compile=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_checkpoint_goes_on_as_it_was_made_or_not_at_all(tmp_path, eager_kernels):
    for was, then, said in ((True, False, "compiled; set .* to true"), (False, True, "not compiled; set .* to false")):
        with pytest.raises(Killed):
            train("plain", tmp_path / str(was), compile=was, kill_at=7)
        with pytest.raises(ValueError, match=rf"c\.pt: a checkpoint of a training that was {said} to go on with it"):
            train("plain", tmp_path / str(was), compile=then)
    found = Precision("float32", "auto", "measuring", 0.5, compiled=True)
    assert found.of_checkpoint({"precision": "bfloat16, compiled"}, tmp_path).words == "bfloat16, compiled"


def test_a_method_that_listens_to_layers_is_refused(tmp_path, eager_kernels):
    model = network()
    message = "machine.compile: group_fisher listens to each layer while the network computes; set it to false"
    with pytest.raises(ValueError, match=message):
        train_classifier(
            model, images(), **told(SETTINGS, compile=True), checkpoint=tmp_path / "c.pt", effects=[group_fisher(model)]
        )
    assert not list(tmp_path.iterdir())


def test_a_machine_without_a_compiler_is_refused_in_a_sentence(tmp_path, monkeypatch, untried):
    import torch._inductor.config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}), pytest.raises(ValueError) as error:
        train("plain", tmp_path / "run", compile=True)
    assert str(error.value).startswith("machine.compile: nothing can be compiled for 'cpu' here: ")
    assert "\n" not in str(error.value) and not list((tmp_path / "run").iterdir())


def test_what_fails_to_compile_says_so_in_a_sentence(tmp_path, eager_kernels, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no such kernel")

    compiled.check_compiler("cpu")
    monkeypatch.setattr(compiled, "BACKEND", broken)
    with pytest.raises(Failure, match=r"machine\.compile: Sequential cannot be compiled, set it to false: ") as error:
        train("plain", tmp_path, model=unnormalised(), compile=True)
    assert "\n" not in str(error.value)


def train_compiled(folder):
    for name, model in (("plain", unnormalised()), ("normalised", network())):
        try:
            found = train("plain", folder / name, model=model, compile=True)[1]
        except ValueError as error:
            found = str(error)
        (folder / f"{name}.json").write_text(json.dumps(found))


def test_processes_train_a_compiled_network_but_for_norms_over_them(tmp_path, eager_kernels):
    assert in_two_processes(train_compiled, tmp_path) == [0, 0]
    _, losses, _ = train("plain", tmp_path / "alone", model=unnormalised())
    assert json.loads((tmp_path / "plain.json").read_text()) == pytest.approx(losses, rel=1e-4)
    said = json.loads((tmp_path / "normalised.json").read_text())
    assert said.startswith("machine.compile: BatchNorms over several processes are not compiled")


@pytest.mark.slow
def test_the_compiler_of_this_machine_computes_what_pytorch_does(tmp_path, untried):
    try:
        compiled.check_compiler("cpu")
    except ValueError as error:
        pytest.skip(str(error))
    plain, losses, _ = train("effects", tmp_path / "plain", epochs=2)
    fast, seen, _ = train("effects", tmp_path / "compiled", epochs=2, compile=True)
    assert seen == pytest.approx(losses, rel=1e-3)
    assert_close(fast.state_dict(), plain.state_dict(), 1e-3)
