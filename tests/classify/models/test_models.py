"""Architectures by name: building, options, refusals, and the way back from a plan."""

import pytest
import torch
from torch import nn

from classify.models import MODELS, build, channel_groups, example_input, get_model, list_models, rebuild
from pruning.plan import PruningPlan

SMALL = {"depth": 8, "width": 0.5}


def test_own_names_come_first_and_none_twice():
    names = list_models()
    assert names[: len(MODELS)] == list(MODELS)
    assert len(names) == len(set(names))
    assert {"resnet20", "resnet50", "mobilenet_v2"} <= set(names)


def test_unknown_name_is_refused_with_the_known_ones():
    for call in (build, lambda name, *_: get_model(name)):
        with pytest.raises(ValueError, match=r"'resnet21'; did you mean 'resnet.*known: .*resnet20.*mobilenet_v2"):
            call("resnet21", 10)


def test_detectors_are_no_classifiers():
    with pytest.raises(ValueError, match="unknown architecture 'fasterrcnn_resnet50_fpn'"):
        build("fasterrcnn_resnet50_fpn", 10)


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_unknown_option_is_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"'{name}' does not take these options: .*'no_such': 1"):
        build(name, 10, {"no_such": 1})


@pytest.mark.parametrize("name", ["resnet20", "squeezenet1_0"])
def test_network_has_the_classes_asked(name):
    model = build(name, 7).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_example_is_one_image_of_the_right_size():
    assert {name: tuple(example_input(name).shape) for name in ("resnet20", "resnet50", "inception_v3")} == {
        "resnet20": (1, 3, 32, 32),
        "resnet50": (1, 3, 224, 224),
        "inception_v3": (1, 3, 299, 299),
    }


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_left_out(name):
    model = build(name, 5).train()
    assert isinstance(model(torch.zeros(2, 3, 96, 96)), torch.Tensor)


def test_groups_know_the_stages_of_their_architecture():
    model = build("cifar_resnet", 10, SMALL)
    assert [g.stage for g in channel_groups("cifar_resnet", model)] == [-1, 0, 1, 2]


def test_same_seed_builds_the_same_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return build("resnet20", 10).state_dict()

    assert all(torch.equal(a, b) for a, b in zip(weights(1).values(), weights(1).values(), strict=True))
    assert not torch.equal(weights(1)["conv1.weight"], weights(2)["conv1.weight"])


def test_rebuilt_network_has_weights_that_fit_its_own_widths():
    plan = PruningPlan("resnet20", {}, {"layer3.0.conv1": tuple(range(4))}, {"layer3.0.conv1": 64})
    torch.manual_seed(0)
    model = rebuild(plan, 10)
    assert model.layer3[0].conv1.weight.shape == (4, 32, 3, 3)
    # normal with std sqrt(2 / (3 * 3 * out)): 4 outputs, not 64
    assert model.layer3[0].conv1.weight.std().item() == pytest.approx((2 / 36) ** 0.5, rel=0.1)
    assert model.layer3[0].bn1.weight.tolist() == [1.0] * 4


def test_empty_plan_rebuilds_the_dense_network():
    model = rebuild(PruningPlan("cifar_resnet", SMALL), 10)
    dense = build("cifar_resnet", 10, SMALL)
    assert [p.shape for p in model.parameters()] == [p.shape for p in dense.parameters()]


def test_plan_for_other_widths_is_refused():
    plan = PruningPlan("cifar_resnet", SMALL, {"layer3.0.conv1": (0,)}, {"layer3.0.conv1": 64})
    with pytest.raises(ValueError, match=r"expects 64 channels in 'layer3\.0\.conv1', this network has 32"):
        rebuild(plan, 10)


def test_plan_of_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="unknown architecture 'gone'"):
        rebuild(PruningPlan("gone"), 10)


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "densenet40", "preresnet110", "vgg16_slim"])
def test_every_parameter_receives_a_gradient(name):
    torch.manual_seed(0)
    model = build(name, 10).train()
    model(torch.randn(2, 3, 32, 32)).logsumexp(1).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
