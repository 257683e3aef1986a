"""Feature reconstruction: the LASSO's count, the refit, the shortcut's loss, selected inputs."""

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from support.reconstruction_networks import Chain, calibration, request, trained_resnet
from torch import nn

from classify.models import build
from pruning.cut import Arch
from pruning.cut import prune as prune_network
from pruning.graph.groups import find_groups
from pruning.methods import Request
from pruning.methods.reconstruction import Options, lasso_channels, prune
from pruning.reconstruct.kernels import Consumer
from pruning.reconstruct.paired import branch_of, observe_pair
from pruning.reconstruct.passes import Passes
from pruning.seeds import random_stream
from pruning.select import Selection


def samples(channels=12, n=80, seed=0):
    random = np.random.default_rng(seed)
    x = np.maximum(random.normal(size=(n, channels)) @ random.normal(size=(channels, channels)), 0)
    return x, x.sum(1) + random.normal(size=n)


def test_lasso_by_hand():
    """Orthogonal channels join in the order of |x . y|: 3, 5, 4, 1."""
    gram, target = np.eye(4), np.array([3.0, -5.0, 4.0, 1.0])
    assert [lasso_channels(gram, target, n) for n in (1, 2, 3)] == [(1,), (1, 2), (0, 1, 2)]


@pytest.mark.parametrize("seed", range(2))
def test_exact_count_and_the_same_channels_as_a_search_over_penalties(seed):
    x, y = samples(seed=seed)
    supports = {}
    for penalty in np.geomspace(50, 1e-2, 150):  # from strong to weak: the first of each size stays
        fitted = Lasso(alpha=penalty, fit_intercept=False, max_iter=50_000, tol=1e-6).fit(x, y).coef_
        supports.setdefault(int((fitted != 0).sum()), tuple(np.flatnonzero(fitted).tolist()))
    for n_keep in range(1, 12):
        found = lasso_channels(x.T @ x, x.T @ y, n_keep)
        assert len(found) == n_keep and list(found) == sorted(found)
        if n_keep in supports:
            assert found == supports[n_keep]


def test_exact_count_where_the_path_ends_early():
    """Channels 0 and 1 are the same and 3 and 4 answer nothing: one of the pair, then the lowest that are left."""
    x = np.array([[1.0, 1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]])
    found = [lasso_channels(x.T @ x, x.T @ x.sum(1), n) for n in range(1, 6)]
    assert [len(kept) for kept in found] == [1, 2, 3, 4, 5]
    assert set(found[1]) in ({0, 2}, {1, 2})
    assert lasso_channels(np.zeros((3, 3)), np.zeros(3), 2) == (0, 1)


def test_refit_restores_what_the_kept_channels_can_say():
    """Hidden a, b, a, 0.5 b; output (2 a + a, 2 b + 0.5 b): two channels say it all after the refit."""
    model = Chain([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.5]], [[2.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 1.0]])
    images = torch.rand(16, 2, 4, 4)
    groups = find_groups(model, images[:1])
    choice = prune(model, Request(groups, Selection(0.5), Options(ridge=0), 0, lambda m: [m(images).mean()]))
    weight = choice.weights["2.weight"][..., 0, 0]
    pruned = Chain(model[0].weight[..., 0, 0].tolist(), weight.tolist())
    assert len(choice.keep["0"]) == 2 and (weight != 0).any(0).sum() == 2
    torch.testing.assert_close(pruned(images), model(images), rtol=1e-3, atol=1e-4)


def observed_on(images, original, work, consumer):
    passes = [Passes(model, lambda m: [m(images).mean()]) for model in (original, work)]
    return observe_pair(*passes, [consumer], positions_per_image=9, generator=random_stream(0, "a"))


def test_targets_come_from_the_original_and_inputs_from_the_pruned_network():
    """The work network's first layer gives half of the original's: twice the kernel makes up for it."""
    original = Chain([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 3.0]], [[2.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 1.0]])
    work = copy.deepcopy(original)
    work[0].weight.data.mul_(0.5)
    images = torch.rand(16, 2, 4, 4)
    consumer = Consumer("2", torch.arange(4)[:, None])
    (sums,) = observed_on(images, original, work, consumer)
    work[2].weight.data = sums.refit((0, 1, 2, 3), ridge=0.0)[..., None]
    torch.testing.assert_close(work(images), original(images), rtol=1e-3, atol=1e-4)


class Residual(nn.Module):
    """x -> down(x) + bn(conv(x)); torchvision's names."""

    branch_end = "bn"

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(2)
        self.downsample = nn.Conv2d(2, 2, 1, bias=False)

    def shortcut_only(self):
        return self.downsample

    def forward(self, x):
        return self.bn(self.conv(x)) + self.downsample(x)


def test_the_end_of_a_branch_absorbs_the_shortcuts_loss():
    """The work network's shortcut lost all its weights; bn multiplies by (2, 0.5): the error is shortcut / (2, 0.5)."""
    torch.manual_seed(0)
    original, work = nn.Sequential(Residual()).eval(), nn.Sequential(Residual()).eval()
    original[0].bn.weight.data = torch.tensor([2.0, 0.5])
    original[0].bn.eps = 1e-30
    work.load_state_dict(original.state_dict())
    work[0].downsample.weight.data.zero_()
    images = torch.rand(8, 2, 3, 3)
    assert branch_of(original, "0.conv").scale.tolist() == [2.0, 0.5]
    assert branch_of(original, "0.downsample") is None
    consumer = Consumer("0.conv", torch.arange(2)[:, None])
    (sums,) = observed_on(images, original, work, consumer)
    refitted = sums.refit((0, 1), ridge=0.0)[..., 0]
    lost = original[0].downsample.weight[..., 0, 0] / torch.tensor([[2.0], [0.5]])
    torch.testing.assert_close(refitted, original[0].conv.weight[..., 0, 0] + lost, rtol=1e-3, atol=1e-4)
    work[0].conv.weight.data = refitted[..., None, None]
    torch.testing.assert_close(work(images), original(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arch", "layers"),
    [
        ("resnet20", {"layer1.0.conv2": "layer1.0", "layer1.0.conv1": None, "fc": None}),
        ("resnet50", {"layer1.0.conv3": "layer1.0", "layer1.0.conv2": None, "layer1.0.downsample.0": None}),
    ],
)
def test_ends_of_branches(arch, layers):
    with torch.device("meta"):
        model = build(arch, 10)
    for layer, block in layers.items():
        branch = branch_of(model, layer)
        assert (branch and branch.block) == block


def test_selects_the_inputs_of_a_blocks_first_convolution():
    model = trained_resnet(steps=30)
    options = Options(select_inputs={"layer3.*.conv1": 0.25})
    asked = request(model, options, ratio=0.0)
    pruned = prune_network(
        model,
        Arch("cifar_resnet", {"depth": 8, "width": 0.5}),
        asked.groups,
        "reconstruction",
        asked.selection,
        batch=torch.rand(2, 3, 8, 8),
        seed=0,
        options=options,
        calibration=calibration,
    )
    assert len(pruned.plan.select["layer3.0.conv1"]) == 12  # of 16
    assert pruned.model.layer3[0].conv1.weight.shape == (32, 12, 3, 3)
    with torch.no_grad():
        assert abs(float(next(calibration(pruned.model.eval())) - next(calibration(model)))) < 0.3


def test_refusals_of_select_inputs():
    model = trained_resnet(steps=0)
    with pytest.raises(ValueError, match=r"select_inputs 'layer9\*' matches no layer; layers: .*layer1.0.conv1"):
        prune(model, request(model, Options(select_inputs={"layer9*": 0.5})))
    with pytest.raises(ValueError, match=r"ratio 1.0 is outside 0 <= ratio < 1"):
        Options(select_inputs={"layer1*": 1.0})


def test_a_calibration_that_goes_round_the_network_is_refused():
    model = trained_resnet(steps=0)

    def calibration_of_a_part(candidate):
        yield candidate.layer1[0](torch.rand(2, 8, 8, 8)).mean()

    with pytest.raises(ValueError, match="must call the network it is given"):
        prune(model, request(model, Options(), calibration=calibration_of_a_part))
