"""What `precision: auto` comes to, and that a training keeps to it."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from support.processes_training import SETTINGS, Killed, images, in_two_processes, network
from support.told import told
from torch import nn

from classify.optimizers import make_optimizer
from classify.train import train_classifier
from training import device as precision
from training.checkpoint import load_checkpoint, save_snapshot
from training.device import Precision, settle
from training.distributed import rank

pytestmark = pytest.mark.usefixtures("minute_a_step")

AUTO = {**SETTINGS, "precision": "auto", "epochs": 2}


def answer(monkeypatch, speedup):
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda: speedup)


def train(folder, settings=AUTO, **more):
    model = network()
    return model, train_classifier(model, images(), **told(settings), checkpoint=folder / "c.pt", **more)


@pytest.mark.parametrize(
    ("speedup", "chosen"), [(0.5, "float32"), (1.0, "float32"), (1.09, "float32"), (1.2, "bfloat16")]
)
def test_the_measurement_decides_and_not_the_processors_flags(monkeypatch, speedup, chosen):
    for flags in ({"amx_bf16": True, "avx512_bf16": True}, {}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags, raising=False)
        answer(monkeypatch, speedup)
        assert settle("auto", "cpu") == Precision(chosen, "auto", "measuring", speedup)
        assert settle("auto", "cpu").dtype is {"float32": None, "bfloat16": torch.bfloat16}[chosen]
        assert settle("float32", "cpu").dtype is None
        assert settle("bfloat16", "cpu").dtype is torch.bfloat16


def test_what_is_measured_is_a_ratio_of_seconds(monkeypatch):
    # bfloat16 takes a quarter of the time
    monkeypatch.setattr(precision, "_seconds", lambda work, dtype: 0.004 if dtype is None else 0.001)
    assert precision.bfloat16_speedup.__wrapped__() == 4.0


def test_measuring_leaves_numbers_and_threads_as_they_are():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with torch.no_grad():
        found = precision.bfloat16_speedup.__wrapped__()
    assert math.isfinite(found) and found > 0
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


def test_a_gpu_is_asked_what_it_multiplies(monkeypatch):
    for supported, name in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, s=supported: s)
        assert settle("auto", "cuda") == Precision(name, "auto", "the device's kind")
    assert settle("float16", "cuda") == Precision("float16", "float16")


def test_a_training_says_in_what_it_computed(tmp_path, auto_is):
    dtypes = []
    model = network()
    model[0].register_forward_hook(lambda m, inputs, output: dtypes.append(output.dtype) if m.training else None)
    outcome = train_classifier(model, images(), **told(AUTO), checkpoint=tmp_path / "c.pt")
    assert (outcome.precision.name, outcome.precision.asked) == (auto_is, "auto")
    assert outcome.precision.bfloat16_speedup == {"float32": 0.5, "bfloat16": 2.0}[auto_is]
    assert set(dtypes) == {getattr(torch, auto_is)}
    assert all(p.dtype is torch.float32 for p in model.parameters())


def kill(step, total, metrics):
    if step == 4:
        raise Killed


@pytest.mark.parametrize("began", ["float32", "bfloat16"])
def test_a_checkpoint_goes_on_in_the_precision_it_was_made_with(tmp_path, monkeypatch, began, caplog):
    settings = {**AUTO, "checkpoint_minutes": 2}
    first, second = (0.5, 2.0) if began == "float32" else (2.0, 0.5)
    answer(monkeypatch, first)
    (tmp_path / "whole").mkdir()
    whole, _ = train(tmp_path / "whole", settings)
    with pytest.raises(Killed):
        train(tmp_path, settings, report=kill)
    assert load_checkpoint(tmp_path / "c.pt", required=["precision"])["precision"] == began
    answer(monkeypatch, second)
    resumed, outcome = train(tmp_path, settings)
    assert outcome.precision == Precision(began, "auto", "the checkpoint", second)
    assert f"the training goes on in that, not in {settle('auto', 'cpu').name}" in caplog.text
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_another_precision_that_is_asked_for_is_refused_in_a_sentence(tmp_path, monkeypatch):
    answer(monkeypatch, 2.0)
    with pytest.raises(Killed):
        train(tmp_path, {**AUTO, "checkpoint_minutes": 2}, report=kill)
    before = (tmp_path / "c.pt").read_bytes()
    message = r"c\.pt: a checkpoint of a training with precision=bfloat16, not float32; ask for bfloat16 or auto"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, {**AUTO, "precision": "float32"})
    assert (tmp_path / "c.pt").read_bytes() == before
    _, outcome = train(tmp_path, {**AUTO, "precision": "bfloat16"})
    assert outcome.precision == Precision("bfloat16", "bfloat16")


def train_in_disagreement(folder):
    """The main process finds bfloat16 fast, the other one float32."""
    precision.bfloat16_speedup = lambda: 2.0 if rank() == 0 else 0.5
    model = network()
    outcome = train_classifier(model, images(), **told(AUTO), checkpoint=folder / "c.pt")
    save_snapshot(folder / f"rank{rank()}.safetensors", model)
    (folder / f"rank{rank()}.json").write_text(json.dumps(outcome.precision.as_result()))


def test_processes_that_train_together_compute_in_what_the_main_one_measured(tmp_path):
    assert in_two_processes(train_in_disagreement, tmp_path) == [0, 0]
    found = [json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1)]
    assert found[0] == found[1] == Precision("bfloat16", "auto", "measuring", 2.0).as_result()
    weights = [load_file(tmp_path / f"rank{r}.safetensors") for r in (0, 1)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_two_processes_in_bfloat16_train_as_one(tmp_path):
    """To bfloat16's 8 bits: what float32 is compared to more closely in test_train_distributed.py."""
    (tmp_path / "one").mkdir()
    alone, _ = train(tmp_path / "one", {**AUTO, "precision": "bfloat16"})
    assert in_two_processes(train_in_disagreement, tmp_path) == [0, 0]
    start, found = network().state_dict(), load_file(tmp_path / "rank1.safetensors")
    for key, value in alone.state_dict().items():
        if value.is_floating_point():
            moved = (value - start[key]).abs().max()
            assert (found[key] - value).abs().max() <= 0.1 * moved + 1e-3, key


def test_a_first_step_that_a_scaler_skips_leaves_no_trace(monkeypatch):
    # deterministic algorithms fill memory that is not initialised with NaN
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    before = torch.are_deterministic_algorithms_enabled()
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = make_optimizer(model, told(SETTINGS, weight_decay=0.0)["settings"])
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    torch.use_deterministic_algorithms(True)
    try:
        for gradient in (float("inf"), 0.5, 0.5):
            optimizer.zero_grad()
            scaler.scale(model(torch.full((1, 1), gradient)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    finally:
        torch.use_deterministic_algorithms(before)
    assert model.weight.item() == pytest.approx(1 - 0.1 * 0.5 - 0.1 * (0.9 * 0.5 + 0.5))
