"""The thread behind: order, a bounded queue, and errors on either side."""

import threading
import time

import pytest

from smtool.data.cache.behind import consumed_behind


def cache_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("cache")]


def test_items_arrive_in_order_in_another_thread_and_few_of_them_wait():
    seen, handed, most = [], 0, 0

    def consume(items):
        nonlocal most
        assert threading.current_thread() is not threading.main_thread()
        for item in items:
            time.sleep(0.002)
            seen.append(item)
            most = max(most, handed - len(seen))

    with consumed_behind(consume, waiting=2) as hand_over:
        for handed in range(1, 21):
            hand_over(handed)
    assert seen == list(range(1, 21))
    assert 1 <= most <= 4      # two wait, one is consumed, one is about to be put
    assert not cache_threads()


def test_an_error_behind_stops_the_maker_and_a_full_queue_does_not_hold_it():
    def consume(items):
        next(items)
        raise OSError("disk full")

    made = []
    with pytest.raises(OSError, match="disk full"), consumed_behind(consume, waiting=1) as hand_over:
        for number in range(1000):
            hand_over(number)
            made.append(number)
    assert len(made) < 1000 and not cache_threads()


def test_an_error_behind_the_last_item_is_raised_too():
    def consume(items):
        for _ in items:
            time.sleep(0.01)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), consumed_behind(consume, waiting=1) as hand_over:
        hand_over(1)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_when_the_maker_fails_nothing_is_finished_behind(error):
    finished, cleaned = [], []

    def consume(items):
        try:
            seen = list(items)
            finished.append(seen)
        finally:
            cleaned.append(True)

    with pytest.raises(error), consumed_behind(consume, waiting=4) as hand_over:
        hand_over(1)
        raise error
    assert (finished, cleaned) == ([], [True]) and not cache_threads()


def test_a_consumer_that_needs_no_end_may_have_ended_before_it():
    with consumed_behind(next, waiting=1) as hand_over:
        hand_over("one")
        time.sleep(0.05)
    with pytest.raises(RuntimeError, match="before it had all items"), consumed_behind(next, waiting=1) as hand_over:
        for number in range(100):
            hand_over(number)
            time.sleep(0.01)
