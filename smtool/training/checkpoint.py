"""Checkpoint folders, written atomically: model, averages, optimizers and state of a run after one step."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field
from torch import Tensor

from smtool import storage
from smtool.errors import CheckpointError, DiskError
from smtool.randomness import SCHEME
from smtool.training.loop import Training
from smtool.training.sharding import gathered, refill

_START_OVER = "Start over with --fresh, or pass another --out."


class _State(BaseModel):
    """state.json. updates: number of updates by player; frozen: {} in checkpoints of old versions without digests.

    randomness: scheme of the run's noise; checkpoints of old versions do not state it.
    """

    step: int
    updates: dict[str, Annotated[int, Field(ge=0)]]
    precision: dict[str, Any]
    frozen: dict[str, str] = {}
    randomness: int = Field(1, ge=1, le=SCHEME)


@dataclass(frozen=True)
class Checkpoints:
    """The `checkpoints/` folder of a run. It keeps the last `keep_last`, and those at multiples of `keep_every` (0: none)."""

    folder: Path
    keep_last: int
    keep_every: int

    def save(self, step: int, training: Training) -> Path:
        """Write a temporary folder, rename it to checkpoints/<step>/, then remove old checkpoints.

        Every rank must call it, because the shards of a sharded player are gathered; only the first rank writes.
        """
        final = self.folder / f"{step:08d}"
        aside = self.folder / f".{step:08d}.part"
        if not training.ranks.first:
            self._write(aside, step, training)
            return final
        shutil.rmtree(aside, ignore_errors=True)
        try:
            self._write(aside, step, training)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        shutil.rmtree(final, ignore_errors=True)
        try:
            os.replace(aside, final)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise DiskError(f"{final}: could not be written ({error.strerror}).", hint="Free some space and resume.") from error
        self.prune()
        return final

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint; None if there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def steps(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit() and (path / "state.json").is_file())

    def randomness(self) -> int:
        """The scheme of the run's noise: that of the newest checkpoint; without a checkpoint, that of new runs."""
        step = self.latest()
        return SCHEME if step is None else self._state(step).randomness

    def _state(self, step: int) -> _State:
        path = self.folder / f"{step:08d}" / "state.json"
        with storage.parsing(path, hint=_START_OVER):
            return _State.model_validate_json(path.read_bytes())

    def load(self, step: int, training: Training) -> None:
        """Restore the players, averages and optimizers of a run to their state after `step`.

        Raises CheckpointError if the checkpoint is damaged, of another network, or trained against other frozen networks.
        """
        folder = self.folder / f"{step:08d}"
        state = self._state(step)
        _check_frozen(folder, state.frozen, training.frozen)
        try:
            for player, module in training.task.players.items():
                refill(module.state_dict(), storage.each_tensor(folder / "model.safetensors", f"{player}/"))
                saved = storage.each_tensor(folder / "optimizer.safetensors", f"{player}/")
                training.optimizers[player].load_state_dict(saved, state.updates[player])
            for player, average in training.averages.items():
                refill(average.state_dict(), storage.each_tensor(folder / "ema.safetensors", f"{player}/"))
        except (LookupError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{folder} does not fit the recipe's network ({error}).", hint=_START_OVER) from error
        with storage.parsing(folder / "state.json", hint=_START_OVER):
            training.precision.load_state_dict(state.precision)

    def _write(self, folder: Path, step: int, training: Training) -> None:
        """Write the files; sharded tensors are gathered, so that a checkpoint can be loaded with any number of ranks."""
        first = training.ranks.first
        if first:
            try:
                folder.mkdir(parents=True)
            except OSError as error:
                raise DiskError(f"{folder.parent}: could not be written ({error.strerror}).") from error
        for name, holders in (("model", training.task.players), ("ema", training.averages), ("optimizer", training.optimizers)):
            tensors = gathered(_joined({player: holder.state_dict() for player, holder in holders.items()}), first=first)
            if first and holders:
                storage.write_tensors(folder / f"{name}.safetensors", tensors, {"kind": "training-state", "step": step})
        if not first:
            return
        state = {
            "step": step,
            "updates": {name: optimizer.updates for name, optimizer in training.optimizers.items()},
            "precision": training.precision.state_dict(),
            "frozen": dict(training.frozen),
            "randomness": training.plan.randomness,
        }
        storage.write_json(folder / "state.json", state)

    def prune(self) -> None:
        """Remove old checkpoints, and what runs that were killed while they wrote or removed one have left."""
        steps = self.steps()
        kept = set(steps[-self.keep_last :]) | {step for step in steps if self.keep_every and step % self.keep_every == 0}
        names = {f"{number:08d}" for number in kept}
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            step = path.name.removeprefix(".").removesuffix(".part")
            if path.is_dir() and path.name not in names and step.isdigit():
                shutil.rmtree(path, ignore_errors=True)


def _check_frozen(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise CheckpointError if a digest differs. before: {} in checkpoints of old versions without digests."""
    for name in before.keys() & now.keys():
        if before[name] != now[name]:
            raise CheckpointError(
                f"{folder} was trained against {name} with digest {before[name]}, but the digest of {name} is now {now[name]}.",
                hint="Restore the earlier weights of that network, or start over with --fresh.",
            )


def _joined(states: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{player}/{name}": tensor for player, state in states.items() for name, tensor in state.items()}

