"""The order of a race's jobs, without doing them."""

from smtool.commands.race.schedule import Schedule, ScheduledJob
from smtool.errors import DataError


def _played(schedule: Schedule, workers: int = 1, breaking: str = "") -> list[list[ScheduledJob]]:
    """Rounds in which all workers take a job and finish it, until none is left. breaking: key whose first job fails."""
    rounds = []
    while True:
        taken = [job for _ in range(workers) if (job := schedule.next()) is not None]
        if not taken:
            return rounds
        rounds.append(taken)
        for job in taken:
            schedule.finished(job, DataError("broken") if job.key == breaking else None)


def _flat(rounds):
    return [job for jobs in rounds for job in jobs]


def _schedule(plan, reached=None, steps=9, may_open=lambda rounds: True):
    return Schedule(plan, reached or {}, steps=steps, may_open=may_open)


def test_all_racers_of_a_seed_take_a_turn_before_the_next_seed(planned):
    order = _flat(_played(_schedule(planned())))
    training = [(job.key, job.step) for job in order if job.stage == "train-ae"]
    runs = ["plain-seed0", "dsm-seed0", "plain-seed1", "dsm-seed1"]
    assert training == [(run, step) for step in (4, 8, 10) for run in runs]
    transformers = [(job.key, job.step) for job in order if job.stage == "train-dit"]
    assert transformers == [(run, step) for step in (4, 8, 9) for run in runs]
    assert [job.stage for job in order[-4:]] == ["score"] * 4


def test_several_workers_never_do_two_jobs_of_one_run_and_never_before_what_they_need(planned):
    plan = planned("judge.predictors=true", "racers.again={recipe='dsm', transformer=['labels={}']}")
    owner = {trial.key: trial.autoencoder.key for trial in plan.trials}
    done: set[tuple[str, str, int]] = set()
    for jobs in _played(_schedule(plan), workers=16):
        assert len({job.key for job in jobs}) == len(jobs)
        for job in jobs:
            if job.stage == "encode":
                assert ("train-ae", job.key, 3) in done
            if job.stage == "train-dit":
                assert ("encode", owner[job.key], 1) in done
            if job.turn > 1:
                assert (job.stage, job.key, job.turn - 1) in done
            if job.stage == "score":
                assert ("train-dit", job.key, 3) in done
        done |= {(job.stage, job.key, job.turn) for job in jobs}
    assert len(done) == 4 * (3 + 1 + 1) + 6 * (3 + 1)


def test_finished_steps_are_not_repeated(planned):
    plan = planned()
    order = _flat(_played(_schedule(plan, {("train-ae", "plain-seed0"): 10, ("train-ae", "dsm-seed0"): 8})))
    keys = [(job.key, job.step) for job in order if job.stage == "train-ae"]
    assert keys == [("plain-seed1", 4), ("dsm-seed1", 4), ("plain-seed1", 8), ("dsm-seed1", 8),
                    ("dsm-seed0", 10), ("plain-seed1", 10), ("dsm-seed1", 10)]  # fmt: skip


def test_at_the_end_of_a_budget_all_are_at_the_same_step_and_are_scored(planned):
    asked = []

    def may_open(rounds):
        asked.append(rounds)
        return rounds < 2

    schedule = _schedule(planned(), may_open=may_open)
    order = _flat(_played(schedule, workers=2))
    assert {job.step for job in order if job.stage == "train-dit"} == {4, 8}
    assert sum(job.stage == "train-dit" for job in order) == 8
    assert sum(job.stage == "score" for job in order) == 4
    assert asked == [0, 1, 2]
    assert schedule.step == 8


def test_a_failed_autoencoder_removes_only_its_own_transformers(planned):
    schedule = _schedule(planned())
    order = _flat(_played(schedule, breaking="dsm-seed1"))
    assert set(schedule.broken) == {"dsm-seed1"}
    assert sum(job.key == "dsm-seed1" for job in order) == 1
    assert {job.key for job in order if job.stage == "score"} == {"plain-seed0", "dsm-seed0", "plain-seed1"}


def test_racers_that_share_a_failed_autoencoder_all_fail(planned):
    schedule = _schedule(planned("racers.again={recipe='dsm', transformer=['labels={}']}"))
    _played(schedule, breaking="dsm-seed0")
    assert set(schedule.broken) == {"dsm-seed0", "again-seed0"}


def test_more_steps_continue_a_finished_race(planned):
    plan = planned()
    reached = {("train-ae", run.key): 10 for run in plan.autoencoders} | {("train-dit", trial.key): 4 for trial in plan.trials}
    order = _flat(_played(_schedule(plan, reached)))
    assert [job.stage for job in order] == ["encode"] * 4 + ["train-dit"] * 8 + ["score"] * 4
    assert {job.step for job in order if job.step} == {8, 9}


def test_a_started_turn_is_finished_by_all_whatever_the_budget(planned):
    schedule = _schedule(planned(), {("train-dit", "dsm-seed0"): 8}, steps=4, may_open=lambda rounds: False)
    order = _flat(_played(schedule))
    assert sum(job.stage == "train-dit" for job in order) == 2 * 4 - 2
    assert schedule.step == 8
