"""What a training without inherited weights starts from."""

import math

import pytest
import torch
from support.tiny_study import tiny

import study.stages.detector
from classify.models import build
from pruning.masks import Masks
from pruning.plan import PruningPlan
from study.stages.classifier import random_start
from study.stages.network import Network
from study.stages.stage import Context


def spread(tensor):
    return float(tensor.detach().double().std())


def masked(arch, *, keep):
    """A network for ten classes of which a share of each convolution weight is left."""
    model = build(arch, 10)
    masks = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            mask = torch.rand(module.weight.shape) < keep
            mask.view(-1)[0] = True
            masks[f"{name}.weight"] = mask
    return Network(PruningPlan(arch), 10, 32, (0.0,) * 3, (1.0,) * 3, Masks(masks))


@pytest.mark.parametrize(("arch", "dense"), [("googlenet", 0.01), ("mobilenet_v2", None)])
def test_masked_weights_of_others_networks_keep_the_rule_of_their_class(arch, dense):
    torch.manual_seed(0)
    for keep in (1.0, 0.25):
        network = masked(arch, keep=keep)
        model = random_start(network)
        for name, mask in network.masks.items():
            weight = model.get_parameter(name)
            if mask.sum() < 20_000:
                continue
            expected = dense or math.sqrt(2 / (weight.shape[0] * weight[0, 0].numel()))
            assert spread(weight[mask]) == pytest.approx(expected * math.sqrt(mask.numel() / int(mask.sum())), rel=0.04)
            assert not bool(weight[~mask].any())


def test_masked_weights_of_our_networks_follow_the_study():
    torch.manual_seed(0)
    network = masked("resnet18", keep=0.25)
    weight = random_start(network).get_parameter("layer4.1.conv2.weight")
    mask = network.masks["layer4.1.conv2.weight"]
    assert spread(weight[mask]) == pytest.approx(math.sqrt(2 * 512 / int(mask.sum())), rel=0.02)


class Built(Exception):
    """Stops a stage where the detector is built, with the classifier that it is built around."""


def test_a_detector_without_pretraining_starts_by_the_rule_of_the_backbones_class(tmp_path, monkeypatch):
    """GoogLeNet's convolutions have a deviation of 0.01, whatever their fan; it once became that of a ResNet."""
    network = Network(
        PruningPlan(
            "googlenet", {}, {"inception5b.branch2.0.conv": tuple(range(96))}, {"inception5b.branch2.0.conv": 192}
        ),
        10,
        64,
        (0.0,) * 3,
        (1.0,) * 3,
    )
    _, routes = tiny("pipelines=[detect_from_scratch]", "prune.method=l1_filter")
    stage = routes[0].evaluation.parents[0]

    def stop(stage, network, classifier, *_, **__):
        raise Built(classifier)

    monkeypatch.setattr(study.stages.detector, "build", stop)
    monkeypatch.setattr(study.stages.detector.Network, "load", classmethod(lambda cls, run: network))
    context = Context(stage, tmp_path, tiny()[0].machine, None)
    with pytest.raises(Built) as caught:
        study.stages.detector.run_train_detector(context)
    conv = caught.value.args[0].get_submodule("inception5b.branch2.1.conv")
    assert conv.in_channels == 96
    assert spread(conv.weight) == pytest.approx(0.01, rel=0.02)
