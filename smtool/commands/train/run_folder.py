"""The folder of a run: recipe, environment, logs, checkpoints."""

import json
import platform
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from smtool import __version__, storage
from smtool.errors import RecipeError
from smtool.recipe import Recipe

_FILES = (
    *("recipe.toml", "resolved.toml", "environment.json", "metrics.jsonl", "log.txt"),
    *("ckpt.safetensors", "autoencoder.safetensors", "comparison.json", "report.html", "DONE", "FAILED"),
)
_FREE_KEYS = {
    *("steps", "log_every", "evaluate_every", "save_every", "keep_last", "keep_every", "compile", "memory"),
    "deterministic",
    *("data.workers", "data.max_bad"),
}
_FREE_TABLES = {"tracking", "validation", "sampler", "parallel"}
_PACKAGES = ("torch", "torchvision", "numpy", "safetensors", "pydantic", "webdataset", "lpips", "timm")


@dataclass(frozen=True)
class RunFolder:
    """runs/NAME/ with recipe.toml, resolved.toml, environment.json, metrics.jsonl, log.txt, report.html, samples/, checkpoints/,
    ckpt.safetensors, and DONE or FAILED."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def has_checkpoint(self) -> bool:
        return any(self.checkpoints.glob("*/state.json"))

    @property
    def ckpt(self) -> Path:
        return self.path / "ckpt.safetensors"

    @property
    def autoencoder(self) -> Path:
        """The autoencoder that was trained together with the transformer (`[end_to_end]`)."""
        return self.path / "autoencoder.safetensors"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def is_done(self) -> bool:
        return (self.path / "DONE").is_file()

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def exists(self) -> bool:
        return (self.path / "resolved.toml").is_file()

    def clear(self) -> None:
        """Remove the files of the run, and nothing else."""
        for name in ("checkpoints", "samples"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for path in [*(self.path / name for name in _FILES), *self.path.glob("events.out.tfevents.*")]:
            path.unlink(missing_ok=True)

    def begin(
        self,
        recipe: Recipe[Any],
        device: str,
        world: int,
        *,
        summary: Sequence[str] = (),
        sources: Mapping[str, str] | None = None,
    ) -> None:
        """Write recipe and environment (with `Run.summary` and `Run.sources`), and remove DONE or FAILED of an earlier start."""
        for folder in (self.path, self.path / "samples"):
            storage.remove_leftovers(folder)
        storage.write_text(self.path / "recipe.toml", recipe.text)
        storage.write_text(self.path / "resolved.toml", recipe.resolved_toml())
        where = environment(device, world)
        storage.write_json(self.path / "environment.json", {**where, "facts": list(summary), "sources": dict(sources or {})})
        for mark in ("DONE", "FAILED"):
            (self.path / mark).unlink(missing_ok=True)

    def recorded(self, source: str) -> str | None:
        """One of `Run.sources` as of the last start; None if there is no checkpoint to resume from."""
        if not self.has_checkpoint:
            return None
        path = self.path / "environment.json"
        with storage.parsing(path):
            found: str | None = json.loads(path.read_text()).get("sources", {}).get(source)
        return found

    def end(self, mark: str, text: str) -> None:
        """Write the file DONE or FAILED with a line of text."""
        storage.write_text(self.path / mark, text + "\n")

    def resolved(self) -> dict[str, Any]:
        """The contents of resolved.toml. Raises CheckpointError if it is damaged."""
        path = self.path / "resolved.toml"
        with storage.parsing(path, hint="--fresh starts the run again."):
            return tomllib.loads(path.read_text(encoding="utf-8"))

    def check_same(self, recipe: Recipe[Any]) -> None:
        """Raise RecipeError if the run was started with another recipe, apart from keys that do not affect weights."""
        before = self.resolved()
        changes = _changes(recipe.as_resolved_now(before), recipe.resolved())
        if changes:
            raise RecipeError(
                "\n  ".join([f"{self.path} was started with another recipe. Changed keys:", *changes]),
                hint="Restore a value with --set KEY=VALUE, start a new run with --out, or restart this one with --fresh.",
            )


def environment(device: str, world: int) -> dict[str, Any]:
    """Environment of the run: versions, device, ranks, threads, command."""
    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else None
    return {
        "smtool": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": device,
        "gpu": gpu,
        "ranks": world,
        "threads": torch.get_num_threads(),
        "command": ["smtool", *sys.argv[1:]],
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line for each key that differs and affects the weights. `steps` does so only with a cosine schedule."""
    old, new = _flat(before), _flat(after)
    decaying = "cosine" in (old.get("optimizer.schedule"), new.get("optimizer.schedule"))
    free = _FREE_KEYS - {"steps"} if decaying else _FREE_KEYS
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    kept = [key for key in differing if key not in free and key.split(".")[0] not in _FREE_TABLES]
    return [f"{key}: {_shown(old, key)} -> {_shown(new, key)}" for key in kept]


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.") or {f"{prefix}{key}": {}}
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(table: Mapping[str, Any], key: str) -> str:
    return json.dumps(table[key]) if key in table else "absent"
