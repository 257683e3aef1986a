"""Items are worked on in threads, a few at a time, and come back in their order."""

import threading
import time

import pytest

from training import side_by_side as module
from training.side_by_side import side_by_side


@pytest.mark.parametrize("n", [0, 1, 7, 1000])
def test_results_come_in_the_order_of_the_items(n):
    def work(item):
        time.sleep(0.001 * (item % 3))
        return 2 * item

    assert list(side_by_side(work, range(n))) == [2 * item for item in range(n)]


def test_several_items_are_worked_on_at_once(monkeypatch):
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    together = threading.Barrier(4, timeout=30)  # who is alone waits in vain
    assert len(list(side_by_side(lambda _: together.wait(), range(8)))) == 8


def test_only_a_few_of_many_items_are_handed_out(monkeypatch):
    monkeypatch.setattr(module, "usable_cores", lambda: 1)
    begun = []
    results = side_by_side(begun.append, range(1_000_000))
    next(results)
    results.close()
    assert len(begun) <= 2 * 2 * 64 + 64


def test_an_error_of_the_work_is_raised():
    def work(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(side_by_side(work, range(100)))
