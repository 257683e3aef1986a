"""Two processes train as one with the same batches does; and how a batch is dealt out to them."""

import json
import signal
from itertools import chain

import pytest
import torch
from safetensors.torch import load_file
from support.processes_training import (
    CHANGES,
    Killed,
    in_two_processes,
    losses_of,
    network,
    save_by_the_main_clock,
    train_together,
    train_until_asked,
)
from torch import nn

from training import distributed
from training.checkpoint import load_checkpoint
from training.distributed import own_parts
from training.synchronised_norm import CrossProcessBatchNorm

pytestmark = pytest.mark.slow

STEPS = 21  # 7 epochs of 8 + 8 + 1 images
KILLED_AT, CHECKPOINT_AT = 8, 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Losses of one process by case, of each of two processes, and the folders with what they wrote."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    single = {name: losses_of(name, one) for name in CHANGES}
    with pytest.raises(Killed):  # what one process began, two go on with
        losses_of("effects", two, kill_at=KILLED_AT)
    assert in_two_processes(train_together, two) == [0, 0]
    together = [json.loads((two / f"losses_rank{r}.json").read_text()) for r in (0, 1)]
    return single, together, one, two


@pytest.mark.parametrize("name", CHANGES)
def test_two_processes_have_the_losses_of_one(runs, name):
    single, (main, other), *_ = runs
    skipped = CHECKPOINT_AT if name == "effects" else 0
    assert len(single[name]) == STEPS
    assert main[name] == pytest.approx(single[name][skipped:], rel=1e-4)
    assert other[name] == []  # one process reports


@pytest.mark.parametrize("name", CHANGES)
def test_two_processes_end_with_the_weights_of_one(runs, name):
    *_, one, two = runs
    expected = load_file(one / f"{name}_rank0.safetensors")
    assert expected.keys() == network().state_dict().keys()
    found = [load_file(two / f"{name}_rank{r}.safetensors") for r in (0, 1)]
    for key, value in expected.items():
        torch.testing.assert_close(found[0][key], value, rtol=2e-3, atol=1e-4)
        assert torch.equal(found[0][key], found[1][key]), key


def test_effects_reach_every_process(runs):
    two = runs[-1]
    for r in (0, 1):
        weight = load_file(two / f"effects_rank{r}.safetensors")["4.weight"]
        assert not weight[:, ::2].any() and weight[:, 1::2].any()
        assert int((weight.flatten(1) == 0).all(1).sum()) == 2  # 0.3 of 8 filters


def test_processes_remove_the_same_channels(runs):
    *_, one, two = runs
    gone = []
    for file in (one / "fisher_rank0.safetensors", two / "fisher_rank0.safetensors", two / "fisher_rank1.safetensors"):
        weights = load_file(file)
        gone.append([(weights[f"{name}.weight"].flatten(1) == 0).all(1).tolist() for name in ("0", "4")])
    assert gone[0] == gone[1] == gone[2]
    assert sum(map(sum, gone[0])) == 5  # 0.4 of 6 and 8 channels


def test_the_snapshot_is_that_of_one_process(runs):
    *_, one, two = runs
    expected, found = (load_file(folder / "adam_snapshot.safetensors") for folder in (one, two))
    assert int(found["1.num_batches_tracked"]) == 2
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5)


def test_an_error_in_one_process_ends_all(tmp_path):
    assert in_two_processes(train_together, tmp_path, "out of luck") == [1, 1]
    assert list(tmp_path.glob("losses*")) == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert in_two_processes(train_until_asked, folder) == [0, 0]
    return (folder / "rank0.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("signum", "asked"), [(signal.SIGTERM, [1]), (signal.SIGINT, [0]), (signal.SIGTERM, [0, 1]), (signal.SIGUSR1, [1])]
)
def test_a_signal_to_any_process_stops_all_after_one_step_and_they_go_on_to_the_same_bits(
    undisturbed, tmp_path, signum, asked
):
    assert in_two_processes(train_until_asked, tmp_path, signum, asked) == [0, 0]
    assert [(tmp_path / f"steps_rank{r}").read_text() for r in (0, 1)] == ["7", "7"]
    assert load_checkpoint(tmp_path / "c.pt", required=["step"])["step"] == 7
    assert in_two_processes(train_until_asked, tmp_path) == [0, 0]
    assert [(tmp_path / f"rank{r}.safetensors").read_bytes() == undisturbed for r in (0, 1)] == [True, True]


@pytest.mark.parametrize(("n", "parts"), [(8, 1), (8, 3), (17, 4), (1, 3), (2, 2)])
def test_parts_are_the_same_images_for_any_number_of_processes(monkeypatch, n, parts):
    cuts = {}
    for size in (1, 2, 3):
        monkeypatch.setattr(distributed, "world_size", lambda size=size: size)
        dealt = []
        for r in range(size):
            monkeypatch.setattr(distributed, "rank", lambda r=r: r)
            own = range(n)[distributed.own_images()]
            dealt.append([list(own[part]) for part in own_parts(n, parts)])
        cuts[size] = [sorted(chain(*part)) for part in zip(*dealt, strict=True)]
    assert cuts[1] == cuts[2] == cuts[3]
    assert list(chain(*cuts[1])) == list(range(n))
    assert all(cuts[1])  # no part that is empty everywhere


def test_parts_written_out():
    # 8 * a // 3 for a = 0..3 is 0, 2, 5, 8
    assert own_parts(8, 3) == [slice(0, 2), slice(2, 5), slice(5, 8)]


@pytest.mark.parametrize("momentum", [0.1, None])
def test_our_batch_norm_is_pytorchs_where_there_is_one_process(momentum):
    torch.manual_seed(0)
    theirs = nn.BatchNorm2d(3, momentum=momentum)
    nn.init.uniform_(theirs.weight)
    nn.init.uniform_(theirs.bias)
    copy = nn.BatchNorm2d(3, momentum=momentum)
    copy.load_state_dict(theirs.state_dict())
    ours = CrossProcessBatchNorm(copy)
    for _ in range(2):
        a = torch.randn(5, 3, 4, 4) * 3 + 1
        b = a.clone()
        outputs = []
        for norm, x in ((theirs, a), (ours, b)):
            x.requires_grad_()
            out = norm(x)
            (out * torch.linspace(0, 1, out.numel()).view_as(out)).sum().backward()
            outputs.append((out, x.grad))
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(copy.state_dict(), theirs.state_dict())
    torch.testing.assert_close(copy.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.eval()(a), theirs.eval()(a))


def test_the_main_process_says_when_all_save(tmp_path):
    assert in_two_processes(save_by_the_main_clock, tmp_path) == [0, 0]
    saved = [json.loads((tmp_path / f"saved_rank{r}.json").read_text()) for r in (0, 1)]
    assert saved == [[8, 16, STEPS]] * 2
    assert load_checkpoint(tmp_path / "c.pt", required=["step"])["step"] == STEPS
