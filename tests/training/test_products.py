"""Products by oneDNN are PyTorch's, and are taken only where they are fast."""

import pytest
import torch
import torch.nn.functional as F

from training import products


@pytest.fixture
def by_convolution(monkeypatch):
    """As on a processor with AVX512; elsewhere the same is computed, slowly."""
    monkeypatch.setattr(products, "_has_avx512", lambda: True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_a_linear_layer_has_pytorchs_values_and_gradients(by_convolution, rows, bias):
    torch.manual_seed(rows)
    given = [torch.randn(rows, 48), torch.randn(10, 48), torch.randn(10) if bias else None]
    results = []
    for function in (F.linear, products.linear):
        x, weight, b = (None if t is None else t.clone().requires_grad_() for t in given)
        assert function is F.linear or products.faster_as_convolution(x)
        y = function(x, weight, b)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        results.append([y, x.grad, weight.grad, *([] if b is None else [b.grad])])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert results[0][2].abs().sum() > 1


def test_a_transposed_product_is_pytorchs(by_convolution):
    torch.manual_seed(0)
    left, right = torch.randn(40, 6), torch.randn(40, 9)
    torch.testing.assert_close(products.transposed_product(left, right), left.T @ right, rtol=1e-4, atol=1e-4)
    assert products.transposed_product(left[:0], right[:0]).equal(torch.zeros(6, 9))


def test_rows_that_do_not_lie_together_are_taken_too(by_convolution):
    torch.manual_seed(0)
    x, weight = torch.randn(48, 20).T, torch.randn(48, 10).T
    torch.testing.assert_close(products.linear(x, weight), F.linear(x, weight), rtol=1e-4, atol=1e-4)


def test_only_float32_on_a_cpu_with_avx512_is_given_to_onednn(monkeypatch):
    x = torch.randn(2, 3)
    monkeypatch.setattr(products, "_has_avx512", lambda: True)
    assert products.faster_as_convolution(x)
    for other in (x.double(), x.bfloat16(), x[:0], x.to("meta")):
        assert not products.faster_as_convolution(other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not products.faster_as_convolution(x)
    monkeypatch.setattr(products, "_has_avx512", lambda: False)
    assert not products.faster_as_convolution(x)
    assert products.linear(x, x).equal(F.linear(x, x))
