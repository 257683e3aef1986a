"""The pretended GPU refuses and counts what a GPU would."""

import copy
import io

import pytest
import torch
from support.pretended_gpu import GPU, MixedDevices, OnGpu, pretended_gpu
from torch import nn

pytestmark = pytest.mark.cpu_only


@pytest.fixture
def gpu():
    with pretended_gpu() as found:
        yield found


def test_what_is_asked_for_on_the_gpu_is_there(gpu):
    x = torch.ones(2, 3)
    linear = nn.Linear(3, 2).to("cuda")
    for tensor in (
        x.to("cuda"), x.cuda(), torch.zeros(3, device="cuda"), torch.tensor([1.0], device=GPU), linear.weight,
        linear(x.to("cuda")), torch.zeros_like(linear.weight), linear.weight.data, linear.weight.detach().clone(),
        copy.deepcopy(linear).weight,
    ):  # fmt: skip
        assert isinstance(tensor, OnGpu) and tensor.device.type == "cuda" and tensor.is_cuda
    for tensor in (x, linear.weight.cpu(), linear.weight.to("cpu"), torch.zeros_like(x.cuda(), device="cpu")):
        assert not isinstance(tensor, OnGpu) and tensor.device.type == "cpu"
    assert isinstance(linear.weight, nn.Parameter) and x.cuda().to("cuda") is not x
    y = x.cuda()
    assert y.to("cuda") is y and torch.equal(y.cpu(), x)
    linear(y).sum().backward()
    assert isinstance(linear.weight.grad, OnGpu) and torch.equal(linear.bias.grad.cpu(), torch.tensor([2.0, 2.0]))


def test_operators_take_tensors_of_one_device(gpu):
    x, here = torch.ones(3, device="cuda"), torch.ones(3)
    for mixed in (
        lambda: x + here,
        lambda: torch.cat([x, here]),
        lambda: torch.stack([x[0], torch.tensor(1.0)]),
        lambda: torch.where(torch.tensor([True, False, True]), x, x),
        lambda: here.add_(x),
        lambda: here[0].add_(x[0]),
        lambda: nn.Linear(3, 1)(x),
        lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
        lambda: x.to("cpu", non_blocking=True),
        lambda: here.index_fill_(0, torch.tensor([1], device="cuda"), 0.0),
        lambda: x.index_fill_(0, torch.tensor([1]), 0.0),
    ):
        with pytest.raises(MixedDevices):
            mixed()
    assert torch.equal((x * torch.tensor(2.0) + 1).cpu(), torch.full((3,), 3.0))  # a scalar may come from the CPU
    for read in (x.numpy, lambda: torch.from_numpy(x)):
        with pytest.raises(TypeError):
            read()


@pytest.mark.parametrize(
    ("look", "kind"),
    [
        (lambda x: x[0].item(), "look"),
        (lambda x: float(x[0]), "look"),
        (lambda x: bool(x[0]), "look"),
        (lambda x: x.nonzero(), "look"),
        (lambda x: x[x > 0], "look"),
        (lambda x: x.__setitem__(x > 0, 1.0), "look"),
        (lambda x: x[torch.tensor([0])], "look"),
        (lambda x: torch.equal(x, x), "look"),
        (lambda x: x.unique(), "look"),
        (lambda x: x.tolist(), "copy"),
        (lambda x: x.cpu(), "copy"),
        (lambda x: x.copy_(torch.ones(3)), "copy"),
        (lambda x: torch.tensor([1.0], device=x.device), "copy"),
        (lambda x: torch.ones(3).to(x.device), "copy"),
    ],
)
def test_where_the_cpu_would_wait_is_counted(look, kind, gpu):
    x = torch.ones(3, device="cuda")
    with pytest.raises(AssertionError, match=rf"{kind}: tests/pretended_gpu/test_the_pretence\.py"), gpu.no_waits():
        look(x)


def test_where_it_would_not_is_not(gpu):
    x, here = torch.ones(3, device="cuda"), torch.ones(3)
    with gpu.no_waits():
        here.to("cuda", non_blocking=True), x.copy_(here, non_blocking=True), x.sum(), x.masked_fill_(x > 0, 1.0)
        torch.zeros(3, device="cuda"), x[torch.zeros_like(x).long()], x.half().float(), x.isfinite().all()


def test_a_file_says_where_its_tensors_were(gpu):
    buffer = io.BytesIO()
    torch.save({"x": torch.ones(3, device="cuda"), "n": 1}, buffer)
    for place, kind in (("cuda", OnGpu), ("cpu", torch.Tensor), (None, OnGpu)):
        buffer.seek(0)
        found = torch.load(buffer, map_location=place, weights_only=True)
        assert type(found["x"]) is kind and found["n"] == 1
