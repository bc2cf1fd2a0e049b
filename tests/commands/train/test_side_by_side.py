from concurrent.futures import Future
from pathlib import Path

import pytest

from smtool.commands.train.side_by_side import Job, _raise_failure
from smtool.errors import Interrupted, SmtoolError, TrainingError
from smtool.worker_process import WorkerDied


def _raised(*errors: Exception | None) -> SmtoolError:
    """What runs that ended so, in the folders 0, 1 ..., come to."""
    runs = []
    for error in errors:
        run: Future[None] = Future()
        run.set_exception(error) if error else run.set_result(None)
        runs.append(run)
    with pytest.raises(SmtoolError) as caught:
        _raise_failure([Job(None, Path(str(number))) for number in range(len(runs))], runs)
    return caught.value


@pytest.mark.parametrize("kind", SmtoolError.__subclasses__())
def test_every_error_of_a_run_keeps_its_kind_and_hint_and_names_the_run(kind):
    raised = _raised(None, kind("words", hint="Look there."))
    assert type(raised) is kind
    assert (raised.message, raised.hint) == ("1: words", "Look there.")


def test_the_run_that_failed_is_told_and_not_those_that_were_stopped_for_it():
    assert str(_raised(Interrupted("Stopped."), WorkerDied(-15), TrainingError("not finite"))) == "2: not finite"


def test_a_death_and_a_fault_of_ours_name_the_run():
    assert str(_raised(WorkerDied(-9))) == "0: the worker process died (exit code -9)."
    assert str(_raised(ZeroDivisionError("by zero"))) == "0: internal error: ZeroDivisionError: by zero"


def test_runs_that_are_done_raise_nothing():
    run: Future[None] = Future()
    run.set_result(None)
    _raise_failure([Job(None, Path("0"))], [run])
