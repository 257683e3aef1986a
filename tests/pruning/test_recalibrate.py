"""BatchNorm statistics after recalibration are the plain averages over the batches."""

import pytest
import torch
from torch import nn

from pruning.recalibrate import recalibrate


def network():
    return nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(1, momentum=0.1))


def test_statistics_are_the_means_over_the_batches():
    """Batches (0, 2) and (4, 8): means 1 and 6, unbiased variances 2 and 8."""
    model = network().train()
    batches = [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [8.0]])]
    assert recalibrate(model, batches) == 2
    assert model[1].running_mean.item() == 3.5
    assert model[1].running_var.item() == 5
    assert model[1].momentum == 0.1
    assert model.training and model[0].training and model[1].training


def test_weights_stay_and_an_evaluated_network_stays_so():
    model = network().eval()
    recalibrate(model, [torch.randn(4, 1)])
    assert not any(m.training for m in model.modules())
    assert model[1].weight.item() == 1 and model[1].bias.item() == 0


@pytest.mark.parametrize("batches", [[], [torch.ones(4, 1), torch.ones(4, 7)]])
def test_old_statistics_come_back_on_an_error(batches):
    model = network()
    model[1].running_mean.fill_(7)
    with pytest.raises((ValueError, RuntimeError)):
        recalibrate(model, batches)
    assert model[1].running_mean.item() == 7
    assert model[1].momentum == 0.1


def test_no_batch_is_an_error_with_a_reason():
    with pytest.raises(ValueError, match="recalibration needs at least one batch"):
        recalibrate(network(), [])


def test_a_network_without_batchnorm_stays_as_it_is():
    assert recalibrate(nn.Linear(1, 1), [torch.ones(2, 1)]) == 1
