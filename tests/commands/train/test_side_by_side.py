from concurrent.futures import Future
from pathlib import Path

import pytest

from smtool.commands.train.side_by_side import Job, _raise_failure
from smtool.errors import Interrupted, SmtoolError, TrainingError
from smtool.worker_process import WorkerDied


def _raised(*errors: Exception | None) -> SmtoolError:
    """The error raised if the runs in folders 0, 1 ... ended with these errors."""
    runs = []
    for error in errors:
        run: Future[None] = Future()
        run.set_exception(error) if error else run.set_result(None)
        runs.append(run)
    with pytest.raises(SmtoolError) as caught:
        _raise_failure([Job(None, Path(str(number))) for number in range(len(runs))], runs)
    return caught.value


@pytest.mark.parametrize("kind", SmtoolError.__subclasses__())
def test_an_error_keeps_its_class_and_hint_and_names_the_run(kind):
    raised = _raised(None, kind("words", hint="Look there."))
    assert type(raised) is kind
    assert (raised.message, raised.hint) == ("1: words", "Look there.")


def test_the_error_is_of_the_failed_run_not_of_those_stopped_because_of_it():
    assert str(_raised(Interrupted("Stopped."), WorkerDied(-15), TrainingError("not finite"))) == "2: not finite"


def test_a_dead_worker_and_an_internal_error_name_the_run():
    assert str(_raised(WorkerDied(-9))) == "0: the worker process died (exit code -9)."
    assert str(_raised(ZeroDivisionError("by zero"))) == "0: internal error: ZeroDivisionError: by zero"


def test_finished_runs_raise_nothing():
    run: Future[None] = Future()
    run.set_result(None)
    _raise_failure([Job(None, Path("0"))], [run])
