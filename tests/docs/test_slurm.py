"""The job script of the SLURM page, run with stand-ins for srun, scontrol and torchrun."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/how-to/slurm.md"
SRUN = """#!/bin/bash
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "$@" >> scontrol.txt
[ "$1" = show ] && printf 'node7\\nnode8\\n'
exit 0
"""
TORCHRUN = """#!/bin/bash
echo "$@" >> torchrun.txt
[ -e fails ] && exit 1
mkdir -p runs/sit
if [ -e runs/sit/saved ]; then touch runs/sit/DONE; exit 0; fi
trap 'touch runs/sit/saved; exit 1' USR1
touch started
for _ in $(seq 1000); do sleep 0.02; done
"""


@pytest.fixture
def job(tmp_path):
    """Starts the script in tmp_path, in which the stand-ins write what they were called with."""
    scripts = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "job.sh").write_text(scripts[0])
    assert scripts[0].startswith("#!/bin/bash") and len(scripts) >= 2
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("torchrun", TORCHRUN)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2"}
    env = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return lambda: subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=env)


def test_the_scripts_are_valid_bash():
    for script in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL):
        assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""


def test_the_job_passes_the_signal_on_requeues_itself_and_ends_by_the_same_command(job, tmp_path):
    first = job()
    until = time.monotonic() + 20
    while not (tmp_path / "started").exists() and time.monotonic() < until:
        time.sleep(0.01)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(20) != 0
    assert (tmp_path / "runs/sit/saved").exists()
    calls = (tmp_path / "scontrol.txt").read_text().splitlines()
    assert calls == ["show hostnames node[7-8]", "requeue 42"]
    assert job().wait(20) == 0
    assert (tmp_path / "runs/sit/DONE").exists()
    assert (tmp_path / "scontrol.txt").read_text().splitlines() == [*calls, calls[0]]      # not requeued again
    one, two = (tmp_path / "torchrun.txt").read_text().splitlines()
    assert one == two and "--rdzv-endpoint=node7:29500" in one
    assert one.endswith("-m smtool train-dit recipes/sit.toml --out runs/sit")


def test_a_job_that_fails_by_itself_is_not_requeued(job, tmp_path):
    (tmp_path / "fails").touch()
    assert job().wait(20) == 1
    assert "requeue" not in (tmp_path / "scontrol.txt").read_text()
