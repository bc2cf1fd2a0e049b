"""What a race has cost so far, kept in its folder, so that a race in several sittings knows all of it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from smtool.storage import write_json


@dataclass
class Costs:
    """key of a run or cell -> stage -> (seconds, core-seconds). A piece of work that was killed is not counted."""

    path: Path
    spent: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Costs":
        spent = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return cls(path, {key: {stage: (pair[0], pair[1]) for stage, pair in stages.items()} for key, stages in spent.items()})

    def add(self, key: str, stage: str, seconds: float, core_seconds: float) -> None:
        stages = self.spent.setdefault(key, {})
        before = stages.get(stage, (0.0, 0.0))
        stages[stage] = (before[0] + seconds, before[1] + core_seconds)
        write_json(self.path, self.spent)

    def seconds(self, stage: str) -> float:
        """Of all keys together."""
        return sum(stages[stage][0] for stages in self.spent.values() if stage in stages)
