"""What a race has cost so far, kept in its folder, so that a race in several sittings knows all of it."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from smtool.commands.race.result import Spent
from smtool.commands.race.schedule import Stage
from smtool.storage import write_json

_SPENT = TypeAdapter(dict[str, dict[str, Spent]])


@dataclass
class Costs:
    """spent: key of a run or trial -> stage -> seconds. A job that was killed is not counted."""

    path: Path
    spent: dict[str, dict[str, Spent]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Costs":
        return cls(path, _SPENT.validate_json(path.read_bytes()) if path.is_file() else {})

    def add(self, key: str, stage: Stage, seconds: float, core_seconds: float) -> None:
        stages = self.spent.setdefault(key, {})
        before = stages.get(stage, Spent(0.0, 0.0))
        stages[stage] = Spent(before.seconds + seconds, before.core_seconds + core_seconds)
        write_json(self.path, self.spent)

    def seconds(self, stage: Stage) -> float:
        """Of all keys together."""
        return sum(stages[stage].seconds for stages in self.spent.values() if stage in stages)
