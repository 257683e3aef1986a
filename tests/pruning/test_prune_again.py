"""A network that is pruned twice: the composed plan on the dense network equals one surgery after the other."""

import pytest
import torch
import torchvision
from support.comparing import largest_difference
from support.small_networks import randomise

from classify.models import build
from pruning.cut import Arch, prune
from pruning.graph.groups import find_groups
from pruning.plan import PruningPlan
from pruning.select import Selection
from pruning.surgery import apply

SHORT = [[1, 16, 1, 1], [6, 24, 2, 2]]  # of MobileNetV2: expansion, channels, blocks, stride
NETWORKS = {
    "resnet8": lambda: build("cifar_resnet", 5, {"depth": 8, "width": 0.5}),
    "resnet10": lambda: build("imagenet_resnet", 5, {"depth": 10, "width": 0.25}),
    "preresnet11": lambda: build("cifar_preresnet", 5, {"depth": 11}),
    "densenet10": lambda: build("cifar_densenet", 5, {"depth": 10}),
    "mobilenet": lambda: torchvision.models.mobilenet_v2(
        num_classes=5, width_mult=0.25, inverted_residual_setting=SHORT
    ),
}
NARROWED, SLIMMED, SOFT = ("l1_filter", "all"), ("slimming", "inner"), ("soft_filter", "inner")
BLOCKS = ("structure_selection", "inner")
CASES = [
    *(("preresnet11", NARROWED, second) for second in (SLIMMED, SOFT, BLOCKS)),  # a trunk that lost channels
    *(("resnet10", NARROWED, second) for second in (SOFT, BLOCKS, NARROWED)),
    ("densenet10", NARROWED, SLIMMED),
    ("mobilenet", NARROWED, SOFT),
    *((name, SOFT, SOFT) for name in NETWORKS),
    *(("preresnet11", first, BLOCKS) for first in (SLIMMED, SOFT)),  # blocks that select or scatter, dropped
    *(("resnet10", BLOCKS, second) for second in (NARROWED, SLIMMED, SOFT)),
]


def cut(model, groups, method, x):
    name, scope = method
    return prune(model, Arch("net", {}), groups, name, Selection(0.4, scope=scope), batch=x, seed=0)


@pytest.mark.parametrize(("network", "first", "second"), CASES)
def test_composed_plan_equals_both_surgeries(network, first, second):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    model = randomise(NETWORKS[network](), x).eval()
    groups = find_groups(model, x[:1])
    once = cut(model, groups, first, x)
    twice = cut(once.model, find_groups(once.model, x[:1]), second, x)
    assert twice.plan.changes_shape
    composed = PruningPlan.from_json(once.plan.then(twice.plan, groups).to_json())
    assert largest_difference(twice.model.double(), apply(model, composed, groups).double(), x.double()) < 1e-9


def test_a_plan_behind_a_narrowed_trunk_needs_the_groups_that_tell_what_is_left():
    first = PruningPlan("net", keep={"a": (1, 3)}, widths={"a": 4})
    with pytest.raises(ValueError, match="the dense network's groups are needed"):
        first.then(PruningPlan("net", select={"b": (0,)}))
