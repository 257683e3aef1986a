"""How long a study takes: by the speed of the machine, then by the stages that are done; numbers worked out by hand."""

import pytest
from support.trivial_stages import stage

from study.plan.pace import Pace, measured_flops

TRAINED, OTHER, BARE = stage(0), stage(1), stage(2)
MACS = {TRAINED.id: 100, OTHER.id: 300, BARE.id: 0}


def test_first_by_the_speed_of_the_machine_then_by_what_was_seen():
    pace = Pace(MACS, flops=20.0, slots=1)  # 10 MACs a second
    assert pace.left([TRAINED, OTHER]) == 40.0
    assert pace.left([TRAINED, OTHER], spent=15.0) == 25.0
    assert pace.left([TRAINED], spent=15.0) == 0.0
    pace.learn(TRAINED, 50.0)  # 2 MACs a second
    assert pace.left([OTHER]) == 150.0


def test_jobs_share_the_machine():
    pace = Pace(MACS, flops=20.0, slots=2)  # each has 5 MACs a second
    assert pace.left([TRAINED, OTHER]) == 40.0
    pace.learn(TRAINED, 20.0)
    assert pace.left([TRAINED, OTHER]) == 40.0


def test_a_stage_without_training_takes_as_long_as_others_of_its_kind():
    pace = Pace(MACS, flops=20.0, slots=1)
    assert 0 < pace.left([BARE]) < 10
    pace.learn(BARE, 6.0)
    assert pace.left([BARE, BARE]) == 12.0


def test_the_words_say_what_it_rests_on():
    pace = Pace(MACS, flops=5e9, slots=2)
    assert pace.source == "5 GFLOP/s, timed"
    pace.learn(TRAINED, 1.0)
    assert pace.source == "the 1 that are done"


def test_a_machine_does_more_than_a_million_operations_a_second():
    assert measured_flops("cpu") > 1e6
    assert measured_flops("cpu") == pytest.approx(measured_flops("cpu"), rel=1e-9)  # it is timed once
