"""timm's networks by name: built, traced, pruned and rebuilt like ours."""

import pytest
import torch

from classify.models import arch, build, channel_groups, get_model, rebuild
from classify.models.timm_networks import find_timm
from pruning.cut import prune
from pruning.plan import PruningPlan
from pruning.select import Selection


@pytest.mark.parametrize("name", ["timm/resnet18", "resnet26", "mobilenetv3_small_050"])
def test_a_timm_network_is_pruned_and_rebuilt(name):
    torch.manual_seed(0)
    model = build(name, 5)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    batch = torch.randn(2, 3, 64, 64)
    groups = channel_groups(name, model, batch)
    pruned = prune(model, arch(name), groups, "l1_filter", Selection(0.5), batch=batch, seed=0)
    assert pruned.difference < 1e-4
    again = rebuild(PruningPlan.from_json(pruned.plan.to_json()), 5)
    again.load_state_dict(pruned.model.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(batch), pruned.model.eval()(batch))


def test_the_prefix_chooses_timm_where_both_have_the_name():
    assert type(build("timm/resnet18", 5)).__module__.startswith("timm.")
    assert not type(build("resnet18", 5)).__module__.startswith("timm.")


def test_the_input_size_is_timms_own():
    assert get_model("timm/resnet18").input_size == 224
    assert find_timm("timm/no_such_network") is None
    with pytest.raises(ValueError, match=r"unknown architecture 'timm/no_such_network'.* and timm's where"):
        get_model("timm/no_such_network")
