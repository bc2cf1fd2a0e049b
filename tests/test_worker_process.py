"""A process that calls functions for its parent: results, errors, and its end."""

import operator
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from smtool.worker_process import WorkerDied, WorkerProcess


@pytest.fixture
def worker():
    process = WorkerProcess({"SMTOOL_TEST": "told"})
    yield process
    process.kill()


def _gone(pid: int) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_results_come_back_from_one_other_process(worker):
    assert worker.call(divmod, 17, 5) == (3, 2)
    pid = worker.call(os.getpid)
    assert pid == worker.call(os.getpid) != os.getpid()
    assert worker.call(os.getenv, "SMTOOL_TEST") == "told"


def test_an_exception_of_the_function_is_raised_in_the_caller(worker):
    with pytest.raises(ZeroDivisionError):
        worker.call(operator.truediv, 1, 0)
    assert worker.call(abs, -3) == 3


def test_printed_text_does_not_disturb_the_answers(worker, capfd):
    worker.call(print, "a line")
    assert worker.call(abs, -3) == 3
    assert capfd.readouterr() == ("", "a line\n")


def test_a_result_that_cannot_be_pickled_is_an_error_of_that_call_only(worker):
    with pytest.raises(TypeError, match="pickle"):
        worker.call(threading.Lock)
    assert worker.call(abs, -3) == 3


def test_a_dead_process_is_an_error_and_the_next_call_starts_a_new_one(worker):
    first = worker.call(os.getpid)
    with pytest.raises(WorkerDied, match=r"exit code 3\)") as caught:
        worker.call(os._exit, 3)
    assert caught.value.exit_code == 3
    assert worker.call(os.getpid) != first


def test_stop_from_another_thread_ends_a_function_without_a_signal_handler(worker):
    worker.call(abs, 0)
    threading.Timer(0.2, worker.stop).start()
    with pytest.raises(WorkerDied) as caught:
        worker.call(time.sleep, 60)
    assert caught.value.exit_code == -signal.SIGTERM


def test_end_waits_for_the_process(worker):
    pid = worker.call(os.getpid)
    worker.end()
    assert _gone(pid)


@pytest.mark.slow
@pytest.mark.parametrize("work", ["w.call(abs, 0); time.sleep(60)", "w.call(time.sleep, 60)"])
def test_it_ends_when_its_parent_has_ended(work):
    code = (
        "import os, time; from smtool.worker_process import WorkerProcess\n"
        f"w = WorkerProcess(); print(w.call(os.getpid), flush=True); {work}"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    assert _gone(pid)


def test_it_starts_without_torch(worker):
    assert worker.call(eval, "'torch' in __import__('sys').modules") is False
