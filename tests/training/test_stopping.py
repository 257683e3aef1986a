"""A signal ends a training after its step, with a checkpoint; the rest gives the same bits."""

import os
import signal

import pytest
import torch
from support.small_training import SETTINGS, images, network
from support.told import told

from classify.train import train_classifier
from training.stopping import Stopped, between_steps, stop_asked, stop_on_signals

pytestmark = pytest.mark.usefixtures("minute_a_step")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_training_ends_after_the_step_and_goes_on_to_the_same_bits(tmp_path, signum):
    whole, stopped = network(), network()
    train_classifier(whole, images(), **told(SETTINGS), checkpoint=tmp_path / "whole.pt")

    def report(step, total, metrics):
        if step == 5:
            os.kill(os.getpid(), signum)

    arguments = {**told(SETTINGS, report_every=1), "checkpoint": tmp_path / "c.pt"}
    with stop_on_signals(), pytest.raises(Stopped, match=signal.Signals(signum).name):
        train_classifier(stopped, images(), report=report, **arguments)
    steps = []
    resumed = network()
    train_classifier(resumed, images(), report=lambda step, *_: steps.append(step), **arguments)
    assert steps[0] in (6, 7)  # asked during the report of step 5, so step 5 or 6 was the last
    for one, two in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_outside_of_a_training_a_signal_ends_at_once():
    with stop_on_signals(), pytest.raises(Stopped, match="SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")
    assert not stop_asked()


def test_a_second_interrupt_does_not_wait_for_the_step():
    with stop_on_signals(), pytest.raises(Stopped, match="SIGINT"), between_steps():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop_asked()
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")


def test_a_signal_after_the_last_look_is_not_forgotten():
    done = []
    with stop_on_signals(), pytest.raises(Stopped), between_steps():
        os.kill(os.getpid(), signal.SIGUSR1)
        done.append(True)
    assert done


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
