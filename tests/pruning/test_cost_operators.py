"""Which operators the counter counts, which cost nothing, and which it refuses."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer, get_model, get_model_weights

from pruning.cost import count_macs


class Applied(nn.Module):
    """One function of the input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


X = (1, 3, 4, 4)


@pytest.mark.parametrize(
    "function",
    [
        F.leaky_relu,
        F.mish,
        torch.ceil,
        torch.lgamma,
        F.normalize,
        lambda x: x[:, :1].expand_as(x) + 0,
        lambda x: torch.addcmul(x, x, x),
        lambda x: x.reshape_as(x) + 1,
        lambda x: x.cumsum(1),
        lambda x: F.unfold(x, 2),
        lambda x: F.lp_pool2d(x, 2, 2),
        lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
        lambda x: F.grid_sample(x, x.new_zeros(1, 4, 4, 2), align_corners=False),
    ],
)
def test_what_is_no_product_of_matrices_is_free(function):
    assert count_macs(nn.Sequential(nn.Conv2d(3, 3, 1), Applied(function)), torch.rand(X)) == 9 * 16


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.mv(x[0, 0], x[0, 0, 0]), "mv"),
        (lambda x: torch.dot(x[0, 0, 0], x[0, 0, 0]), "dot"),
        (lambda x: torch.tensordot(x, x, 1), "tensordot"),
        (lambda x: F.bilinear(x, x, x.new_zeros(2, 4, 4)), "bilinear"),
        (lambda x: torch.linalg.inv(x + torch.eye(4)), "linalg_inv"),
        (lambda x: torch.addbmm(x[0, 0], x[0], x[0]), "addbmm"),
    ],
)
def test_a_product_without_a_formula_is_refused_by_name(function, name):
    with pytest.raises(ValueError, match=f"cannot count the multiply-adds of aten::{name}"):
        count_macs(Applied(function), torch.rand(X))


@pytest.mark.parametrize(
    ("function", "macs"),
    [
        (lambda x: x @ x, 3 * 4 * 4 * 4),
        (lambda x: torch.baddbmm(x[0], x[0], x[0]), 3 * 4 * 4 * 4),
        (lambda x: torch.einsum("nchw,nchv->ncwv", x, x), 3 * 4 * 4 * 4),
        # 4 queries, 4 keys of 4 numbers in 3 heads, and the product with the values
        (lambda x: F.scaled_dot_product_attention(x, x, x), 2 * 3 * 4 * 4 * 4),
        (lambda x: ((x @ x.transpose(-2, -1)).softmax(-1)) @ x, 2 * 3 * 4 * 4 * 4),
    ],
)
def test_products_have_their_closed_form(function, macs):
    assert count_macs(Applied(function), torch.rand(X)) == macs


@pytest.mark.parametrize("need_weights", [True, False], ids=["written out", "fused"])
def test_a_module_of_attention_counts_its_products(need_weights):
    model = Applied(lambda x: model.attention(x, x, x, need_weights=need_weights)[0])
    model.attention = nn.MultiheadAttention(8, 2, batch_first=True)
    projections, products = 4 * 5 * 8 * 8, 2 * 5 * 5 * 8
    assert count_macs(model, torch.rand(1, 5, 8)) == projections + products


def test_padding_by_name_is_counted():
    assert count_macs(nn.Conv2d(4, 6, 3, padding="same", groups=2), torch.rand(1, 4, 5, 5)) == 6 * 2 * 9 * 25


def test_transformers_count_their_attention_alike():
    """Swin writes its products out, ViT calls a fused operator: both have their closed form."""
    vit = VisionTransformer(16, 8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3)
    tokens, pixels = 5, 3 * 8 * 8
    inside = tokens * (4 * 8 * 8 + 2 * 8 * 16) + 2 * tokens * tokens * 8
    assert count_macs(vit, torch.zeros(1, 3, 16, 16)) == 4 * pixels * 8 + inside + 8 * 3
    swin = SwinTransformer([2, 2], 8, [2], [2], [2, 2], mlp_ratio=2.0, num_classes=3)
    blocks, windows, tokens = 2, 4, 4
    inside = blocks * windows * (tokens * (4 * 8 * 8 + 2 * 8 * 16) + 2 * tokens * tokens * 8)
    assert count_macs(swin, torch.zeros(1, 3, 8, 8)) == 16 * 12 * 8 + inside + 8 * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "maxvit_t", "convnext_tiny"])
def test_torchvisions_own_numbers_are_met(name):
    published = get_model_weights(name).DEFAULT.meta["_ops"]  # 10^9 multiply-adds, three decimals
    assert count_macs(get_model(name), torch.zeros(1, 3, 224, 224)) / 1e9 == pytest.approx(published, abs=6e-4)
