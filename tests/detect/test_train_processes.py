"""Two processes train a detector as one with the same batches does; and what is refused."""

import json
import multiprocessing
import os
import signal
import socket
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.detector_processes import (
    CHECKPOINT_AT,
    EVERYTHING,
    ITERATIONS,
    KILLED_AT,
    NORMS,
    Killed,
    distilled,
    losses_of,
    train_together,
)
from support.tiny_detector import make_detector, settings, two_squares
from support.written_detections import written_detections

from detect.evaluate import METRICS, evaluate_detector
from detect.processes import Processes
from detect.train import scaled_to_processes
from training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What one process found, what each of two found, and the folders with what they wrote."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    dataset = two_squares(tmp_path_factory.mktemp("data"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    single = {norm: losses_of(dataset, one, norm) for norm in NORMS}
    single["distilled"] = distilled(dataset, one)
    with pytest.raises(Killed):  # what one process began, two go on with
        losses_of(dataset, two, "SyncBN", kill_at=KILLED_AT)
    torch.set_num_threads(threads)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")  # not forked from here, where COCO's metrics were computed
    context.set_forkserver_preload(["support.detector_processes"])  # importing Detectron2 takes longer than to train
    processes = [context.Process(target=train_together, args=(r, port, dataset, two)) for r in (0, 1)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the server
        for process in processes:
            process.start()
    for process in processes:
        process.join(600)
        if process.is_alive():
            process.kill()
            process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return single, [json.loads((two / f"rank{r}.json").read_text()) for r in (0, 1)], one, two


@pytest.mark.parametrize("norm", NORMS)
def test_two_processes_report_the_losses_of_one(runs, norm):
    """Equal to rounding: sums are taken in another order, and training carries that on from step to step."""
    single, (main, other), *_ = runs
    skipped = CHECKPOINT_AT if norm == "SyncBN" else 0
    expected = single[norm]["reported"][skipped:]
    assert [found["step"] for found in main[norm]["reported"]] == [*range(skipped + 1, ITERATIONS + 1)]
    for found, wanted in zip(main[norm]["reported"], expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-3)
    assert other[norm]["reported"] == []  # one process reports
    assert main[norm]["final_loss"] == other[norm]["final_loss"] == pytest.approx(single[norm]["final_loss"], rel=1e-3)
    assert main[norm]["images"] == single[norm]["images"] == 4 * ITERATIONS


@pytest.mark.parametrize("norm", NORMS)
def test_two_processes_end_with_the_weights_of_one(runs, norm):
    """To a hundredth of how far training moved them: rounding grows from step to step, most where SyncBN is.

    After one step the two differ by less than 2e-5 anywhere; that grows with the learning rate.
    """
    *_, one, two = runs
    expected = load_file(one / f"{norm}_rank0.safetensors")
    found = [load_file(two / f"{norm}_rank{r}.safetensors") for r in (0, 1)]
    start = make_detector(norm=norm)[0].state_dict()
    assert expected.keys() == found[0].keys() == start.keys()
    moved = max(float((value - start[key]).abs().max()) for key, value in expected.items() if value.is_floating_point())
    assert moved > 1e-2
    for key, value in expected.items():
        torch.testing.assert_close(found[0][key], value, rtol=2e-3, atol=1e-4)
        assert torch.equal(found[0][key], found[1][key]), key


@pytest.mark.parametrize("norm", NORMS)
def test_an_evaluation_shared_out_is_that_of_one_process(runs, norm, tmp_path):
    """Of the same weights, evaluated again by one process: the same detections in the same order."""
    _, (main, other), _, two = runs
    assert other[norm]["scores"] == {} and not (two / f"{norm}_scores_rank1").exists()  # one process writes
    detector, cfg = make_detector(norm=norm, **EVERYTHING)
    detector.load_state_dict(load_file(two / f"{norm}_rank0.safetensors"))
    again = evaluate_detector(detector, cfg, dataset=two_squares(tmp_path), out_dir=tmp_path)
    expected, found = (written_detections(folder) for folder in (tmp_path, two / f"{norm}_scores_rank0"))
    assert {d["image_id"] for d in found} == set(range(8))
    assert [(d["image_id"], d["category_id"]) for d in found] == [(d["image_id"], d["category_id"]) for d in expected]
    np.testing.assert_allclose([d["bbox"] for d in found], [d["bbox"] for d in expected], rtol=1e-4, atol=1e-3)
    for name in METRICS:
        assert main[norm]["scores"][name] == pytest.approx(again[name])


def test_validation_ends_both_after_the_same_step_with_the_same_weights(runs):
    *_, two = runs
    assert [found["early"] for found in runs[1]] == [{"trained": 3, "kept": {"iteration": 2, "AP": 30.0}}] * 2
    main, other = (load_file(two / f"early_rank{r}.safetensors") for r in (0, 1))
    assert all(torch.equal(main[key], other[key]) for key in main)


def test_two_processes_learn_from_a_teacher_as_one_does(runs):
    """Each has all of it, and shows it its own images."""
    single, (main, _), one, two = runs
    assert {"loss_distill_features", "loss_distill_logits"} <= single["distilled"][0].keys()
    for found, wanted in zip(main["distilled"], single["distilled"], strict=True):
        assert found == pytest.approx(wanted, rel=1e-3)
    expected = load_file(one / "distilled_rank0.safetensors")
    found = [load_file(two / f"distilled_rank{r}.safetensors") for r in (0, 1)]
    for key, value in expected.items():
        torch.testing.assert_close(found[0][key], value, rtol=2e-3, atol=1e-4)
        assert torch.equal(found[0][key], found[1][key]), key


def test_a_signal_to_one_process_stops_both_after_the_same_step(runs):
    *_, two = runs
    assert [found["ends"]["stopped"] for found in runs[1]] == [signal.SIGTERM] * 2
    # the signal comes after step 1; processes ask one another every two steps
    assert load_checkpoint(two / "stopped.pt", required=("iteration",))["iteration"] == 2


def test_a_loss_of_one_process_that_is_not_finite_ends_both(runs):
    assert [found["ends"]["poisoned"] for found in runs[1]] == ["step 2: the loss is nan; lower the learning rate"] * 2


def test_a_batch_that_cannot_be_shared_out_is_refused(runs):
    messages = [found["ends"]["odd"] for found in runs[1]]
    assert messages == ["batch_size=3 cannot be split evenly over 2 processes"] * 2


def test_detectron2s_reference_world_size_scales_the_settings():
    """The example in the documentation of Detectron2's auto_scale_workers: 8 processes to 16."""
    _, cfg = make_detector(overrides={"SOLVER.REFERENCE_WORLD_SIZE": 8})
    with mock.patch("detect.train.world_size", lambda: 16):
        scaled = scaled_to_processes(settings(batch_size=16, lr=0.1, iterations=5000)["settings"], cfg)
    assert (scaled.batch_size, scaled.lr, scaled.iterations) == (32, 0.2, 2500)
    one = scaled_to_processes(settings(batch_size=16, lr=0.1, iterations=5000)["settings"], cfg)
    assert (one.batch_size, one.lr, one.iterations) == (2, 0.0125, 40000)
    with pytest.raises(ValueError, match=r"batch_size=12 is no multiple of SOLVER\.REFERENCE_WORLD_SIZE=8"):
        scaled_to_processes(settings(batch_size=12)["settings"], cfg)
    plain = settings()["settings"]
    assert scaled_to_processes(plain, make_detector()[1]) == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_gpus": -1}, "--num-gpus -1"),
        ({"num_machines": 0}, "--num-machines 0"),
        ({"num_gpus": 2, "machine_rank": 1}, "--machine-rank 1: the rank of a machine counts from 0"),
        ({"num_gpus": 2, "num_machines": 2}, "several machines need --num-gpus and a --dist-url"),
        ({"num_gpus": 0, "num_machines": 2, "dist_url": "tcp://a:1"}, "several machines need --num-gpus"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Processes(**options)


def test_options_that_do_not_fit_the_machine_are_refused(monkeypatch):
    assert [Processes(n).total for n in (0, 1, 2)] == [1, 1, 2]
    assert Processes(4, 2, 1, "tcp://a:1").total == 8
    Processes(4).check("cpu")  # without GPUs, processes on the CPU
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ValueError, match="--num-gpus 4: this machine has 2"):
        Processes(4).check("cuda")
    with pytest.raises(ValueError, match="hide the GPUs"):
        Processes(2).check("cpu")
