"""Files of an earlier version, continued by itself and by the present one: equal row for row, tensor for tensor.

tests/test_before_redesign.py does the same with files that lie in the repository.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parents[2]
_TIMES = {"images_per_second", "waiting_share"}
_UNLIKE = {"log.txt", "environment.json", "report.html", "again.json", "DONE", "dataset.json"}


def compare(before: Path, scratch: Path) -> Iterator[str]:
    """Lines: how many files were compared, and those that differ. before: the source tree of the earlier version."""
    theirs, ours = scratch / "theirs", scratch / "ours"
    theirs.mkdir()
    _run(before, theirs, "write")
    shutil.copytree(theirs, ours)
    _run(before, theirs, "continue")
    _run(HERE, ours, "continue")
    names = [sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()) for top in (theirs, ours)]
    yield from (f"only in one of them: {name}" for name in sorted(set(names[0]) ^ set(names[1])))
    shared = sorted(set(names[0]) & set(names[1]))
    kinds: dict[str, int] = {}
    for name in shared:
        if Path(name).name not in _UNLIKE:
            kinds[Path(name).suffix] = kinds.get(Path(name).suffix, 0) + 1
            if _value(theirs / name) != _value(ours / name):
                yield f"differs: {name}"
    yield f"{sum(kinds.values())} files compared: {kinds}"
    scores = [json.loads((top / "again.json").read_text())["scores"] for top in (theirs, ours)]
    yield f"scores {'equal' if _numbers(scores[0]) == _numbers(scores[1]) else f'differ: {scores}'}: {sorted(scores[0])}"


def _run(tree: Path, folder: Path, what: str) -> None:
    path = os.pathsep.join([str(tree), str(HERE / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "campaign.version_files", what], cwd=folder, env=environment, check=True)


def _value(path: Path) -> Any:
    """What must be equal: tensors, rows without times, bytes."""
    if path.suffix == ".safetensors":
        return {name: (str(value.dtype), tuple(value.shape), _bytes(value)) for name, value in load_file(path).items()}
    if path.name == "metrics.jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [{key: value for key, value in row.items() if key not in _TIMES} for row in rows]
    return sha256(path.read_bytes()).hexdigest()


def _bytes(value: torch.Tensor) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _numbers(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: (score["value"], score["half_width"]) for name, score in scores.items()}
