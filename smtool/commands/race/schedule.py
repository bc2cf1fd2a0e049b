"""Order of a race's jobs. All runs advance together, so that an interrupted race compares equally trained racers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from smtool.commands.race.plan import RacePlan
from smtool.errors import SmtoolError

Stage = Literal["train-ae", "encode", "train-dit", "score", "predict"]
STAGES: tuple[Stage, ...] = ("train-ae", "encode", "train-dit", "score", "predict")


@dataclass(frozen=True)
class ScheduledJob:
    """A job to do. key: of its autoencoder's run or of its trial; step: last step of a turn of training."""

    stage: Stage
    key: str
    turn: int = 1
    step: int = 0


class Schedule:
    """Gives out jobs in the order of stage, turn, seed and racer, each after the jobs that it needs.

    reached: (stage, key) -> step of the run on disk; an autoencoder and a trial may have the same key. steps: largest step of the
    transformers. may_open: called once before each further turn of the transformers, with the number of finished turns; if it
    returns False, no further turn starts. A turn that one transformer has started is finished by all.
    num_jobs, num_done: numbers of jobs, for a progress line.
    Not thread-safe: workers must hold a lock.
    """

    def __init__(
        self, plan: RacePlan, reached: Mapping[tuple[str, str], int], *, steps: int, may_open: Callable[[int], bool]
    ) -> None:
        self.broken: dict[str, SmtoolError] = {}
        self._may_open = may_open
        self._busy: set[str] = set()
        trained = [reached.get(("train-dit", trial.key), 0) for trial in plan.trials]
        self._ends = _ends(max(steps, *trained), plan.turn)
        self._opened = sum(max(trained) > start for start in (0, *self._ends[:-1]))
        self._closed = False
        self._owner = {trial.key: trial.autoencoder.key for trial in plan.trials}
        order = {key: number for number, key in enumerate(_interleaved(plan))}
        self._waiting = sorted(_jobs(plan, self._ends), key=lambda job: (STAGES.index(job.stage), job.turn, order[job.key]))
        self._waiting = [job for job in self._waiting if not 0 < job.step <= reached.get((job.stage, job.key), 0)]
        learning = {self._owner[job.key] for job in self._waiting if job.stage == "train-dit"}
        self._waiting = [job for job in self._waiting if job.stage != "encode" or job.key in learning]
        self.num_jobs, self.num_done = len(self._waiting), 0

    @property
    def step(self) -> int:
        """The step that every transformer reaches, except failed ones, with the turns opened so far."""
        return self._ends[self._opened - 1] if self._opened else 0

    @property
    def is_busy(self) -> bool:
        """Whether any job is running."""
        return bool(self._busy)

    def next(self) -> ScheduledJob | None:
        """Take the next job that can start now; None if all remaining jobs need a running one, or none remain."""
        for job in self._waiting:
            if job.key not in self._busy and self._is_ready(job):
                self._waiting.remove(job)
                self._busy.add(job.key)
                return job
        return None

    def finished(self, job: ScheduledJob, error: SmtoolError | None = None) -> None:
        """Mark a job as done. After an error, all jobs that need its run are removed."""
        self._busy.discard(job.key)
        self.num_done += 1
        if error is not None:
            fed = [] if job.stage == "predict" else [key for key, owner in self._owner.items() if owner == job.key]
            self.broken |= {key: error for key in (job.key, *fed) if key not in self.broken}
            self._waiting = [other for other in self._waiting if other.key not in self.broken]

    def _is_ready(self, job: ScheduledJob) -> bool:
        """Whether all jobs that it needs are done. Jobs with the same key never run at the same time."""
        if job.stage == "train-dit" and not self._is_open(job.turn):
            return False
        needed = {job.key, self._owner.get(job.key, job.key)}
        if needed & self._busy:
            return False
        return not any(self._comes_before(other, job) for other in self._waiting if other.key in needed)

    def _comes_before(self, other: ScheduledJob, job: ScheduledJob) -> bool:
        if other.stage == "train-dit" and other.turn > self._opened and self._closed:
            return False      # it will not be done
        return (STAGES.index(other.stage), other.turn) < (STAGES.index(job.stage), job.turn) and other.stage != "predict"

    def _is_open(self, turn: int) -> bool:
        if turn > self._opened and not self._closed:
            if self._may_open(self._opened):
                self._opened += 1
            else:
                self._closed = True
        return turn <= self._opened


def _jobs(plan: RacePlan, ends: list[int]) -> list[ScheduledJob]:
    jobs = []
    for run in plan.autoencoders:
        jobs += [ScheduledJob("train-ae", run.key, turn, step) for turn, step in enumerate(_ends(run.steps, plan.turn), start=1)]
        jobs.append(ScheduledJob("encode", run.key))
        if plan.judge.predictors:
            jobs.append(ScheduledJob("predict", run.key))
    for trial in plan.trials:
        jobs += [ScheduledJob("train-dit", trial.key, turn, step) for turn, step in enumerate(ends, start=1)]
        jobs.append(ScheduledJob("score", trial.key))
    return jobs


def _ends(steps: int, turn: int) -> list[int]:
    """Last step of each turn of a run."""
    return [min(start + turn, steps) for start in range(0, steps, turn)]


def _interleaved(plan: RacePlan) -> list[str]:
    """Keys of runs and trials: all racers of one seed, then those of the next."""
    trials = sorted(plan.trials, key=lambda trial: plan.seeds.index(trial.seed))
    return [*dict.fromkeys(key for trial in trials for key in (trial.autoencoder.key, trial.key))]
