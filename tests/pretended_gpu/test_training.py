"""A classifier's training on a GPU that is pretended: nothing is left on the CPU, and no step waits for the GPU."""

import pytest
import torch
from support.pretended_gpu import OnGpu, pretended_gpu
from support.training_on_gpu import EFFECTS, network, steps_without_waiting, trained
from torch import nn

from training.synchronised_norm import CrossProcessBatchNorm, synchronised_norms

pytestmark = [pytest.mark.cpu_only, pytest.mark.usefixtures("minute_a_step")]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_no_step_waits_for_the_gpu(optimizer, precision):
    steps_without_waiting(precision=precision, optimizer=optimizer, accumulate=2)


@pytest.mark.parametrize("effect", [name for name in EFFECTS if name != "none"])
def test_no_effect_has_a_step_wait_but_where_its_masks_change(effect):
    steps_without_waiting(effect, "float16")


def test_no_step_of_a_distilled_training_waits():
    steps_without_waiting(distilled=True)


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_training_is_that_of_the_cpu_and_goes_on_from_a_checkpoint(effect, tmp_path):
    for folder in ("cpu", "gpu", "killed"):
        (tmp_path / folder).mkdir()
    expected = trained(effect, on="cpu", folder=tmp_path / "cpu")
    whole = trained(effect, folder=tmp_path / "gpu")
    resumed = trained(effect, kill_at=5, folder=tmp_path / "killed")
    for name, tensor in expected.items():
        # group_fisher divides by costs, which are counted on a trace; that does not see what pretended tensors do
        if effect != "group_fisher":
            torch.testing.assert_close(whole[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
        assert torch.equal(resumed[name], whole[name]), name


def test_norms_over_processes_are_pytorchs_on_a_gpu(monkeypatch):
    monkeypatch.setattr("training.synchronised_norm.world_size", lambda: 2)
    with pretended_gpu():
        model = network().to("cuda")
        before = dict(model.state_dict(keep_vars=True))
        with synchronised_norms(model):
            kinds = {type(module) for module in model.modules()}
            assert nn.SyncBatchNorm in kinds and not kinds & {nn.BatchNorm2d, CrossProcessBatchNorm}
            inside = model.state_dict(keep_vars=True)
            assert list(inside) == list(before) and all(inside[name] is before[name] for name in before)
            out = model(torch.zeros(2, 3, 8, 8, device="cuda"))  # alone: as BatchNorm
            assert isinstance(out, OnGpu) and model[1].num_batches_tracked.device.type == "cuda"
        assert nn.BatchNorm2d in {type(module) for module in model.modules()}
