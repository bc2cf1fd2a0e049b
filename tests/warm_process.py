"""Processes of the command line that start in milliseconds: forks of one that has imported torch and the commands.

Each is a process of its own, with arguments, working folder, environment, output and exit code; it only saves the seconds of
imports, and of drawing pages. Worker processes that they start are such forks too (`fork_workers`). Tests of the start itself,
and one of each command (tests/commands/test_every_command.py), use new interpreters, which draw.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

from smtool import worker_process
from smtool.worker_process import WorkerProcess

IMPORTED = [
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "matplotlib.figure", "rich.live", "smtool.cli",
    "smtool.commands.race.race", "smtool.commands.sample.samples", "smtool.commands.train.run_autoencoder",
    "smtool.commands.train.run_diffusion", "smtool.commands.train.training", "torch._dynamo", "torch.utils.tensorboard",
    "torchvision", "typer",
]  # fmt: skip


class Running:
    """A started process: what tests use of subprocess.Popen. stdout and stderr are files, read when it has ended."""

    def __init__(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = [os.path.join(self._folder.name, name) for name in ("stdout", "stderr")]
        request = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env), "outputs": self._outputs}
        self._process = _SERVER.Process(target=runpy.run_path, args=(__file__, {"REQUEST": request}, "forked"))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float = 300) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired("smtool", timeout)
        return self._process.exitcode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        self.wait(timeout)
        return self.output()

    def output(self) -> tuple[str, str]:
        """Standard output and error so far."""
        stdout, stderr = (Path(name).read_text() if os.path.exists(name) else "" for name in self._outputs)
        return stdout, stderr


class Worker:
    """What smtool.worker_process.WorkerProcess uses of subprocess.Popen, of a fork that answers its calls."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        pipes = [os.path.join(self._folder.name, name) for name in ("questions", "answers")]
        for pipe in pipes:
            os.mkfifo(pipe)
        stderr = f"/proc/{os.getpid()}/fd/2"
        files = [*pipes, stderr if os.path.exists(stderr) else os.devnull]
        request = {"files": files, "cwd": os.getcwd(), "env": {**os.environ, **environment}, "path": sys.path}
        self._process = _SERVER.Process(target=runpy.run_path, args=(__file__, {"REQUEST": request}, "worker"))
        self._process.start()
        self._lock = threading.Lock()      # one thread waits for the end, another asks for it
        self.stdin = open(pipes[0], "wb")      # noqa: SIM115 - open until the end of the process
        self.stdout = open(pipes[1], "rb")      # noqa: SIM115

    def poll(self) -> int | None:
        with self._lock:
            return self._process.exitcode

    def wait(self) -> int:
        while (code := self.poll()) is None:
            connection.wait([self._process.sentinel])
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self.wait()
        self.stdout.close()


def fork_workers(put: Callable[[Any, str, Any], None]) -> None:
    """From now on, worker processes of smtool are forks. put: sets an attribute, such as `setattr`."""
    put(WorkerProcess, "_started", lambda worker: Worker(worker._environment))


def start(*arguments: Any, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Running:
    """Start `smtool ARGUMENTS`, or a script if the first argument ends in .py. env: of the process, by default this one's."""
    environment = {**(os.environ if env is None else env), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return Running([str(argument) for argument in arguments], cwd or Path.cwd(), environment)


def run(
    *arguments: Any, cwd: Path | None = None, env: Mapping[str, str] | None = None, ranks: int = 1, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """The same to its end, with text output. ranks: processes as torchrun starts them; their outputs are joined in order."""
    environment = dict(os.environ if env is None else env)
    if ranks == 1:
        processes = [start(*arguments, cwd=cwd, env=environment)]
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        world = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GLOO_SOCKET_IFNAME": "lo", **address}
        processes = [
            start(*arguments, cwd=cwd, env={**environment, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(ranks)
        ]
    outputs = [process.communicate(timeout) for process in processes]
    code = next((process.returncode for process in processes if process.returncode), 0)
    stdout, stderr = ("".join(parts) for parts in zip(*outputs, strict=True))
    return subprocess.CompletedProcess(["smtool", *map(str, arguments)], code, stdout, stderr)


def _become(request: dict[str, Any]) -> None:
    """In the fork: take on the requested arguments, folder, environment and outputs, and run."""
    for number, path in enumerate([os.devnull, *request["outputs"]]):
        file = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", 1)
    _prepare(request)
    program, *arguments = request["arguments"]
    try:
        if program.endswith(".py"):
            sys.argv = [program, *arguments]
            runpy.run_path(program, run_name="__main__")
        else:
            sys.argv = ["smtool", program, *arguments]
            runpy.run_module("smtool", run_name="__main__", alter_sys=True)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _answer(request: dict[str, Any]) -> None:
    """In the fork: serve calls, through the requested pipes, as `python -m smtool.worker_process` does."""
    os.setsid()
    for number, path in enumerate(request["files"]):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND), number)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    sys.path[:] = request["path"]
    _prepare(request)
    worker_process.serve()


def _prepare(request: dict[str, Any]) -> None:
    """Environment, folder, signals, threads; without drawings, and with forks of the same server as workers."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch
    from undrawn import leave_out_drawings

    torch.set_num_threads(1)
    leave_out_drawings(setattr)
    forkserver._forkserver.ensure_running = lambda: None      # the server whose fork this is
    fork_workers(setattr)


_SERVER = multiprocessing.get_context("forkserver")
if __name__ == "forked":
    _become(globals()["REQUEST"])
elif __name__ == "worker":
    _answer(globals()["REQUEST"])
else:
    _SERVER.set_forkserver_preload(IMPORTED)
