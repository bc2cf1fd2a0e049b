import os
import signal
import threading

import pytest

from smtool.commands.train.interrupts import stop_request


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_sets_the_request_and_handlers_are_restored(number):
    before = signal.getsignal(number)
    with stop_request() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
    assert signal.getsignal(number) == before


def test_a_first_ctrl_c_prints_a_message_and_a_second_one_stops_at_once(capfd):
    with stop_request() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert "Press Ctrl-C again to stop at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked


def test_outside_the_main_thread_nothing_is_handled():
    found = []

    def work() -> None:
        with stop_request() as stop:
            found.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
