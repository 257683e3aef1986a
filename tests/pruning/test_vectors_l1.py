"""L1 pruning against the released code of the study: the same channels and the same logits."""

import pytest
import torch
from support.reference import fixed_input, input_state, load_state, load_vector

from classify.models import arch, build, channel_groups
from pruning.cut import prune
from pruning.targets import TARGETS


def relative(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("name", "target", "classes", "trace_side"),
    [("l1_res56_A", "resnet56-A", 10, 32), ("in_l1_resnet34_A", "resnet34-A", 1000, 64)],
)
def test_released_choice_and_logits_are_met(name, target, classes, trace_side):
    vector, target = load_vector(name), TARGETS[target]
    model = build(target.arch, classes).eval()
    load_state(model, input_state(vector))
    x = fixed_input(target.input_size)
    groups = channel_groups(target.arch, model, torch.zeros(1, 3, trace_side, trace_side))
    pruned = prune(model, arch(target.arch), groups, "l1_filter", target.selection, batch=x, seed=0)

    expected = dict(zip(vector["mask_layer_names"], map(tuple, vector["kept"]), strict=True))
    whole = {name: tuple(range(len(kept))) for name, kept in expected.items() if name not in pruned.plan.keep}
    assert {**whole, **pruned.plan.keep} == expected
    with torch.no_grad():
        assert relative(model(x), vector["logits_before"]) <= 1e-4
        assert relative(pruned.model.eval()(x), vector["logits_pruned"]) <= 1e-4
    assert [[k, list(v.shape)] for k, v in pruned.model.state_dict().items() if v.ndim] == vector["pruned_keys"]
