"""Fast copies of networks are what deepcopy makes of them."""

import copy

import pytest
import torch
from torch import nn

from classify.models import build
from pruning.copying import copy_network


def same(value, other):
    """Equal attributes, none of them shared where it can change."""
    if isinstance(value, torch.Tensor):
        return torch.equal(value, other) and value.data_ptr() != other.data_ptr() and type(value) is type(other)
    if isinstance(value, nn.Module):
        return type(value) is type(other) and vars(value).keys() == vars(other).keys()
    return type(value) is type(other)


@pytest.mark.parametrize("name", ["preresnet164", "vgg11_slim", "mobilenet_v3_small", "swin_t"])
def test_a_copy_is_what_deepcopy_makes(name):
    model = build(name, 3).eval()
    model.register_forward_hook(lambda *arguments: None)
    fast, slow = copy_network(model), copy.deepcopy(model)
    assert [n for n, _ in fast.named_modules()] == [n for n, _ in slow.named_modules()]
    for one, other in zip(fast.modules(), slow.modules(), strict=True):
        assert type(one) is type(other) and not one.training
        assert vars(one).keys() == vars(other).keys()
        assert all(same(value, vars(other)[key]) for key, value in vars(one).items())
        assert all(len(vars(one)[key]) == len(value) for key, value in vars(other).items() if isinstance(value, dict))
    for key, value in model.state_dict().items():
        assert torch.equal(value, fast.state_dict()[key])
        assert value.data_ptr() != fast.state_dict()[key].data_ptr()


def test_what_is_shared_stays_shared_and_what_says_how_it_is_copied_is_asked():
    class Counts(nn.Module):
        def __deepcopy__(self, memo):
            return nn.Identity()

    model = nn.Module()
    model.one = model.other = nn.Linear(2, 2)
    model.bias = model.one.bias
    model.listed = [model.one]
    found = copy_network(model)
    assert found.one is found.other is found.listed[0] is not model.one
    assert found.bias is found.one.bias is not model.bias
    assert isinstance(copy_network(Counts()), nn.Identity)
