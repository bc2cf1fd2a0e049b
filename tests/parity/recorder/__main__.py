"""Record again and compare with the stored recordings: python -m recorder REFERENCE [--write] [NAME ...].

REFERENCE is a folder with the checkouts listed in README.md. --write replaces the stored recordings with the new ones.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from given import autoencoder_cases, eqvae_cases, recording, transformer_cases, uvit_cases

from recorder.checkouts import DSM_TRAINER, EQVAE, ESM_TRAINER, IREPA, REPA, SIT, UVIT, Checkout

HERE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Job:
    """One recording: the module that makes it, its case (if the module has several), its checkout, its number of processes."""

    name: str
    module: str
    case: tuple[str, ...]
    checkout: Checkout
    processes: int = 1

    def run(self, reference: Path, out: Path) -> None:
        """Run in a separate process and folder: released modules have equal names, and some write to the current folder."""
        checkout = self.checkout.open(reference)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent.parent))),
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",  # without it, processes without GPUs do not connect
        }
        command = [sys.executable, "-m", *self._launcher, f"recorder.{self.module}", *self.case, str(checkout), str(out)]
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.name} could not be recorded:\n{done.stderr[-4000:]}")

    @property
    def _launcher(self) -> list[str]:
        launched = ["torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}", "-m"]
        return launched if self.processes > 1 else []


JOBS = (
    *(
        Job(c.name, "spectrum_matching", (c.name,), DSM_TRAINER if c.dsm else ESM_TRAINER, c.processes)
        for c in autoencoder_cases.CASES
    ),
    *(Job(c.name, "repa", (c.name,), IREPA if c.alignment == "irepa" else REPA) for c in transformer_cases.CASES),
    Job("repa-samplers", "repa_samplers", (), REPA),
    Job("irepa-measures", "irepa_measures", (), IREPA),
    Job("repa-pictures", "repa_pictures", (), REPA),
    *(Job(c.name, "uvit", (c.name,), UVIT) for c in uvit_cases.CASES),
    *(Job(name, "eqvae", (name,), EQVAE) for name in eqvae_cases.STEPS),
    Job("sit", "sit", (), SIT),
    Job("images", "images", (), ESM_TRAINER),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="recorder", description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(job.name for job in JOBS))
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    jobs = [job for job in JOBS if not asked.names or job.name in asked.names]
    for job in jobs:      # check all before the first recording runs
        job.checkout.open(asked.reference)
    unlike = 0
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs:
            fresh = Path(folder) / f"{job.name}.json"
            job.run(asked.reference.resolve(), fresh)
            lines = _differences(job.name, fresh)
            unlike += bool(lines)
            state = "differs from the stored recording" if lines else "as stored"
            print("\n  ".join([f"{job.name}: {state}", *lines[:8]]), flush=True)
            if asked.write:
                (recording.FOLDER / fresh.name).write_bytes(fresh.read_bytes())
    if unlike and not asked.write:
        raise SystemExit(f"{unlike} recordings differ from the stored ones.")


def _differences(name: str, fresh: Path) -> list[str]:
    if not (recording.FOLDER / fresh.name).exists():
        return ["there is none"]
    return recording.differences(recording.read(name), recording.read_file(fresh))


if __name__ == "__main__":
    main()
