"""A waiting rank ends when another one gives no sign of life, and waits for one that does, however long it works."""

import threading
import time

import pytest
from torch.distributed import HashStore

from smtool.errors import CheckpointError, RankLost
from smtool.training import heartbeat
from smtool.training.heartbeat import Heartbeat, say_failed


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 0.5)
    return HashStore()


def test_a_silent_rank_is_named(store):
    mine = Heartbeat(store, 0, 3)
    other = Heartbeat(store, 1, 3)      # rank 2 has ended
    with pytest.raises(RankLost, match=r"Rank 0 of 3 stops: rank 2 has given no sign of life for 0 seconds") as caught:
        mine.wait_for("never")
    assert caught.value.exit_code == 8 and "resumes" in caught.value.hint
    mine.stop()
    other.stop()


def test_a_rank_that_works_for_longer_than_the_silence_is_waited_for(store):
    ranks = [Heartbeat(store, rank, 2) for rank in range(2)]
    threading.Timer(1.0, lambda: store.set("done", "x")).start()
    began = time.monotonic()
    ranks[0].wait_for("done")
    assert time.monotonic() - began > 0.9
    for one in ranks:
        one.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_a_rank_that_ended_with_an_error_is_not_waited_for_and_the_first_error_is_told(store):
    mine = Heartbeat(store, 0, 3)
    say_failed(store, 2, CheckpointError("image 7 holds NaN."))
    say_failed(store, 1, RankLost("Rank 1 of 3 stops"))
    say_failed(store, 1, ValueError("later"))
    with pytest.raises(RankLost, match=r"^Rank 0 of 3 stops: rank 2 has ended with an error \(image 7 holds NaN\)\."):
        mine.wait_for("never")
    mine.stop()
