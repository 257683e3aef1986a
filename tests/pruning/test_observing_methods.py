"""ThiNet and reconstruction alike: better than chance on a trained network, repeatable, clear about what they need."""

import pytest
import torch
from support.reconstruction_networks import calibration, request, trained_resnet

from pruning.cut import Arch
from pruning.cut import prune as prune_network
from pruning.methods import METHODS


@pytest.fixture(scope="module")
def resnet():
    return trained_resnet()


@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
def test_beats_random_channels_before_any_fine_tuning(resnet, method):
    asked = request(resnet, None)

    def loss(name, seed):
        arch = Arch("cifar_resnet", {"depth": 8, "width": 0.5})
        batch = torch.rand(2, 3, 8, 8)
        pruned = prune_network(
            resnet, arch, asked.groups, name, asked.selection, batch=batch, seed=seed, calibration=calibration
        )
        assert set(pruned.plan.kept_counts().values()) == {4, 8, 16}
        with torch.no_grad():
            return float(next(calibration(pruned.model.eval())))

    with torch.no_grad():
        dense = float(next(calibration(resnet)))
    lost = [loss(method, seed) - dense for seed in range(3)]
    lost_at_random = [loss("random", seed) - dense for seed in range(5)]
    assert max(lost) < 0.6 * sum(lost_at_random) / 5


@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
def test_deterministic_under_its_seed_and_the_model_unchanged(resnet, method):
    before = {key: value.clone() for key, value in resnet.state_dict().items()}
    options = METHODS[method].options(positions_per_image=2)
    first, again, other = (METHODS[method].prune(resnet, request(resnet, options, seed=s)) for s in (0, 0, 1))
    assert first.keep == again.keep
    assert all(torch.equal(value, again.weights[key]) for key, value in first.weights.items())
    assert not all(torch.equal(value, other.weights[key]) for key, value in first.weights.items())
    assert all(torch.equal(value, before[key]) for key, value in resnet.state_dict().items())
    assert not resnet.training and not any(m._forward_hooks or m._forward_pre_hooks for m in resnet.modules())


@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
def test_ratio_zero_is_the_identity(resnet, method):
    choice = METHODS[method].prune(resnet, request(resnet, METHODS[method].options(), ratio=0.0))
    assert not choice.weights and all(kept == tuple(range(len(kept))) for kept in choice.keep.values())


@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
def test_fine_tunes_between_layers_without_reviving_removed_channels(resnet, method):
    calls = []

    def finetune(model):
        calls.append(model.training)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            next(calibration(model)).backward()
            optimizer.step()

    asked = request(resnet, METHODS[method].options(), finetune=finetune)
    choice = METHODS[method].prune(resnet, asked)
    assert len(calls) == 3  # once a layer
    assert "fc.weight" in choice.weights  # tuned too, so it must be handed on
    gone = sorted(set(range(8)) - set(choice.keep["layer1.0.conv1"]))
    assert not choice.weights["layer1.0.conv2.weight"][:, gone].any()


@pytest.mark.parametrize("method", ["thinet", "reconstruction"])
def test_refusals(resnet, method):
    options = METHODS[method].options()
    with pytest.raises(ValueError, match=f"{method} needs calibration data: a callable that"):
        METHODS[method].prune(resnet, request(resnet, options, calibration=None))
    with pytest.raises(ValueError, match=f"{method} takes each layer's share from the user"):
        METHODS[method].prune(resnet, request(resnet, options, level="global"))
    with pytest.raises(ValueError, match=r"the calibration data does not fit ResNet: .*3 channels"):
        grey = request(resnet, options, calibration=lambda m: [m(torch.zeros(2, 1, 8, 8)).sum()])
        METHODS[method].prune(resnet, grey)
    with pytest.raises(ValueError, match="not finite"):
        broken = request(resnet, options, calibration=lambda m: [m(torch.full((2, 3, 8, 8), torch.nan)).sum()])
        METHODS[method].prune(resnet, broken)
    with pytest.raises(ValueError, match=r"positions_per_image=0"):
        METHODS[method].options(positions_per_image=0)
