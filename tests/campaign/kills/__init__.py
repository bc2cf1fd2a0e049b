"""Kills: run a command in a forked process (or, some of them, a new one), disturb it, resume it, and compare its files.

The parent has imported everything and computed nothing, so that a victim starts in milliseconds and no thread pool was forked.
Report pages take a second of drawing and are not compared; 9 of 10 victims write an empty page.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import torch
import torch._dynamo  # the optimizer imports it, which takes seconds in every victim

from campaign.kills.faults import KINDS, Fault, Operations
from campaign.kills.scenarios import SCENARIOS, Scenario, build, contents, place
from campaign.sandbox import Case, judged
from campaign.workers import Ledger, silence
from smtool.commands.race import race as race_module
from smtool.commands.train import training, watch

_SHARES = {"prepare": 14, "prepare a tar.gz": 8, "prepare --latents": 14, "train-ae": 20, "train-dit": 18, "sample to png": 6,
           "sample to npz": 6, "sample to shards": 6, "eval": 6, "race": 2}  # fmt: skip
COLD_EVERY = 20
_TRIES = 4
_LIMIT = 600


def run_kills(cases: list[int], ledger: Ledger, *, seed: int, scratch: Path, workers: int, only: str | None) -> None:
    """Run the cases that the ledger does not hold yet, in `workers` processes."""
    inputs = scratch / "inputs"
    inputs.mkdir()
    if _child(partial(build, inputs), scratch / "status").get("fault"):
        raise RuntimeError("the inputs were not built in time")
    done = ledger.done()
    numbers = [number for number in cases if number not in done and only in (None, _chosen(number))]
    wanted = {(_chosen(number), _is_cold(number)) for number in numbers}
    for cold in (False, True):
        part = [number for number in numbers if _is_cold(number) == cold]
        names = sorted({name for name, other in wanted if other == cold})
        expected = {name: _undisturbed(name, inputs, scratch, cold=cold) for name in names}
        places = [scratch / f"worker-{start}" for start in range(workers)]
        processes = [
            os.fork() or _work(part[start::workers], expected, ledger, seed, inputs, place) for start, place in enumerate(places)
        ]
        for process in processes:
            os.waitpid(process, 0)


def _is_cold(number: int) -> bool:
    return number % COLD_EVERY == 0


def _chosen(number: int) -> str:
    names = [name for name, share in _SHARES.items() for _ in range(share)]
    return Random(number).choice(names)


class Undisturbed:
    """Results, seconds and number of file operations of a run that is not disturbed."""

    def __init__(self, files: dict[str, str], seconds: float, operations: int) -> None:
        self.files, self.seconds, self.operations = files, seconds, operations


def _undisturbed(name: str, inputs: Path, scratch: Path, *, cold: bool) -> Undisturbed:
    scenario, folder = SCENARIOS[name], scratch / "undisturbed"
    place(inputs, scenario, folder)
    began = time.time()
    if cold:
        row = _cold(scenario, folder, None, 0.0)
    else:
        row = _child(partial(_run, scenario, folder, None, 0, pages=False), scratch / "status")
    seconds = time.time() - began
    files = contents(folder, scenario)
    if row.get("ended") != "success" or not files:
        raise RuntimeError(f"{name} does not run undisturbed: {row}")
    print(f"{name}{', cold' if cold else ''}: {seconds:.2f} s, {len(files)} files", flush=True)
    return Undisturbed(files, seconds, int(str(row.get("operations", 0))))


def _work(numbers: list[int], expected: dict[str, Undisturbed], ledger: Ledger, seed: int, inputs: Path, scratch: Path) -> int:
    """Run cases in this process, and end it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    scratch.mkdir(exist_ok=True)
    for number in numbers:
        began = time.time()
        name = _chosen(number)
        rng = Random(f"{seed}/{number}")
        cold = _is_cold(number)
        try:
            tried, ended, fault, trace = _one(name, expected[name], inputs, scratch, rng, cold=cold)
        except Exception:
            tried, ended, fault, trace = "", "campaign", "the campaign's own fault", traceback.format_exc()
        row = {
            "case": number,
            "kind": f"{name}{', cold' if cold else ''}",
            "tried": tried,
            "ms": round(1e3 * (time.time() - began)),
        }
        ledger.add({**row, "ended": ended, **({"fault": fault, "trace": trace[-3000:]} if fault else {})})
    os._exit(0)


def _one(name: str, expected: Undisturbed, inputs: Path, scratch: Path, rng: Random, *, cold: bool) -> tuple[str, str, str, str]:
    """(what was done, how the victim ended, fault, details)."""
    scenario, folder, status = SCENARIOS[name], scratch / "case", scratch / "status"
    place(inputs, scenario, folder)
    fault = Fault.drawn(rng, KINDS[:2] if cold else KINDS)
    pages = rng.random() < 0.1 and name != "race"
    tried = f"{fault.kind} at {fault.moment:.3f}"
    if cold:
        row = _cold(scenario, folder, fault, expected.seconds)
    else:
        victim = partial(_run, scenario, folder, fault, expected.operations, pages=pages)
        row = _child(victim, status, fault, expected.seconds)
    if row.get("fault"):
        return tried, str(row["ended"]), f"{fault.kind}: {row['fault']}", str(row.get("trace"))
    lost = _lose(folder, scenario, fault) if fault.kind == "lost shard" else ""
    for _ in range(_TRIES):
        again = (
            _cold(scenario, folder, None, 0.0) if cold else _child(partial(_run, scenario, folder, None, 0, pages=False), status)
        )
        if again.get("fault"):
            return f"{tried} {lost}", str(row["ended"]), f"resumed after {fault.kind}: {again['fault']}", str(again.get("trace"))
        if again["ended"] == "success":
            break
        if lost:  # said in one sentence
            return f"{tried} {lost}", f"{row['ended']}, then {again['ended']}", "", ""
    else:
        return tried, str(row["ended"]), f"not resumed after {fault.kind}: {again['ended']}", str(again)
    found = {**contents(folder, scenario)}
    name_lost = lost.split(" ")[0]
    if name_lost in expected.files and name_lost.startswith(("run", "race")):  # of a step that is done: not written again
        found[name_lost] = expected.files[name_lost]
    wrong = sorted(path for path in found.keys() | expected.files.keys() if found.get(path) != expected.files.get(path))
    if wrong:
        kinds = ["missing" if path not in found else "too many" if path not in expected.files else "differs" for path in wrong]
        said = f"after {fault.kind}{' and a loss' if lost else ''}: {kinds[0]} {_shape(wrong[0])}"
        return f"{tried} {lost}", str(row["ended"]), said, str(list(zip(wrong, kinds, strict=True)))
    return f"{tried} {lost}", str(row["ended"]), "", ""


def _shape(path: str) -> str:
    return "".join("#" if letter.isdigit() else letter for letter in path)


def _lose(folder: Path, scenario: Scenario, fault: Fault) -> str:
    """Delete one file of the interrupted results."""
    files = sorted(
        path
        for name in scenario.out
        for path in (folder / name).rglob("*")
        if path.suffix in (".tar", ".npy", ".safetensors", ".png")
    )
    if not files:
        return "nothing to lose"
    lost = files[int(fault.lose * len(files)) % len(files)]
    lost.unlink()
    return f"{lost.relative_to(folder)} lost"


def _run(scenario: Scenario, folder: Path, fault: Fault | None, operations: int, *, pages: bool) -> dict[str, object]:
    """In the child: run the scenario. Returns how it ended and the number of its file operations."""
    torch.set_num_threads(1)
    silence()
    os.chdir(folder)
    if not pages:
        _leave_pages_empty()
    counter = Operations(-2, None)
    if fault is None:
        sys.addaudithook(counter)
    else:
        fault.begin(operations)
    return {**judged(Case("", scenario.run)).row(), "operations": counter.count}


def _leave_pages_empty() -> None:
    watch.write_report = training.write_report = lambda folder: folder.report  # type: ignore[attr-defined]
    race_module.write_report = lambda result, folder: []  # type: ignore[attr-defined]


def _child(call: Callable[[], object], status: Path, fault: Fault | None = None, seconds: float = 0.0) -> dict[str, object]:
    """Call in a forked process and send it the fault's signal. Returns what the call returned, {"ended": "killed"} if it died."""
    status.unlink(missing_ok=True)
    process = os.fork()
    if process == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        code = 0
        try:
            answer = call()
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            handle = os.open(status.with_suffix(".part"), os.O_WRONLY | os.O_CREAT)
            os.write(handle, json.dumps(answer).encode())
            os.rename(status.with_suffix(".part"), status)
        except BaseException:
            traceback.print_exc()
            code = 3
        os._exit(code)
    began = time.time()
    if fault is not None and fault.signal is not None:
        while (
            time.time() - began < fault.moment * seconds
            and os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.002)
        os.kill(process, fault.signal)  # a zombie at the latest: it is waited for below
    while (ended := os.waitpid(process, os.WNOHANG)) == (0, 0):
        if time.time() - began > _LIMIT:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return {"ended": "hang", "fault": f"no end within {_LIMIT} s"}
        time.sleep(0.002)
    if status.is_file():
        found: dict[str, object] = json.loads(status.read_text()) or {"ended": "success"}
        return found
    return {"ended": f"killed {os.WTERMSIG(ended[1])}" if os.WIFSIGNALED(ended[1]) else "status lost"}


def _cold(scenario: Scenario, folder: Path, fault: Fault | None, seconds: float) -> dict[str, object]:
    """Run the command line in a new process. seconds: of an undisturbed run, of which the imports take about half or more."""
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "smtool", *scenario.command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if fault is not None and fault.signal is not None:
        try:
            process.wait(seconds * (0.3 + 0.7 * fault.moment))
        except subprocess.TimeoutExpired:
            process.send_signal(fault.signal)
    _, errors = process.communicate()
    code = process.returncode
    known = {0: "success", 2: "RecipeError", 3: "DataError or CheckpointError", 7: "DiskError", 130: "Interrupted"}
    if code < 0:
        return {"ended": f"killed {-code}"}
    if code not in known or "Traceback" in errors:
        return {"ended": "error", "fault": f"exit code {code}", "trace": errors}
    return {"ended": known[code], "seconds": time.time() - began}
