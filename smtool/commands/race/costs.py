"""Computing time of a race so far, kept in its folder, so that a resumed race reports all of it."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from smtool.commands.race.result import Spent
from smtool.commands.race.schedule import Stage
from smtool.storage import write_json

_SPENT = TypeAdapter(dict[str, dict[str, Spent]])


@dataclass
class Costs:
    """spent: key of a run or trial -> stage -> seconds. Killed jobs are not counted."""

    path: Path
    spent: dict[str, dict[str, Spent]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Costs":
        """Read the file, or start at zero if it does not exist."""
        return cls(path, _SPENT.validate_json(path.read_bytes()) if path.is_file() else {})

    def add(self, key: str, stage: Stage, seconds: float, core_seconds: float) -> None:
        """Add the time of a job, and write the file."""
        stages = self.spent.setdefault(key, {})
        before = stages.get(stage, Spent(0.0, 0.0))
        stages[stage] = Spent(before.seconds + seconds, before.core_seconds + core_seconds)
        write_json(self.path, self.spent)

    def seconds(self, stage: Stage) -> float:
        """Wall-clock seconds of a stage, summed over all keys."""
        return sum(stages[stage].seconds for stages in self.spent.values() if stage in stages)
