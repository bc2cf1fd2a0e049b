"""The reliability campaign: mutated inputs, kills, and files of earlier versions.

    make campaign                                        # everything; hours
    PYTHONPATH=tests python -m campaign inputs --cases 5000 --seed 1 --out campaign
    PYTHONPATH=tests python -m campaign kills --cases 50
    PYTHONPATH=tests python -m campaign case 1234         # one case again, with the traceback
    PYTHONPATH=tests python -m campaign summary           # what was tried and what broke so far

Cases are drawn from (seed, number) alone, so a number names a case for ever. Finished cases are lines of OUT/inputs-SEED.jsonl
and OUT/kills-SEED.jsonl; the same command goes on after the last one.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a thread pool would not survive a fork

import torch

from campaign.sandbox import Case, Sandbox
from campaign.summary import summary
from campaign.workers import Ledger, MakeCase, limit_memory, run_cases


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m campaign", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("inputs", "kills", "versions", "case", "summary"))
    parser.add_argument("number", nargs="?", type=int, help="of `case`")
    parser.add_argument("--cases", type=int, help="default: 100,000 inputs, 1,000 kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="only this kind of inputs, or this scenario of kills")
    parser.add_argument("--again", action="store_true", help="only the cases that broke before")
    parser.add_argument("--out", type=Path, default=Path("campaign"), help="folder of the JSONL files")
    parser.add_argument("--scratch", type=Path, help="folder for the cases' files; default: in memory, where there is /dev/shm")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--before", type=Path, help="of `versions`: source tree of an earlier version")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    base = asked.scratch or (Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None)
    asked.out = asked.out.resolve()
    scratch = Path(tempfile.mkdtemp(prefix="campaign-", dir=base))
    began = time.time()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the files of the cases are removed
    try:
        {"inputs": _inputs, "kills": _kills, "versions": _versions, "case": _case, "summary": _summary}[asked.what](
            asked, scratch
        )
    finally:
        os.chdir("/")
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{time.time() - began:.0f} s")


def _inputs(asked: argparse.Namespace, scratch: Path) -> None:
    from campaign.inputs import chosen

    ledger, numbers = _todo(asked, "inputs", asked.cases or 100_000)
    numbers = [number for number in numbers if asked.only in (None, chosen(number))]
    run_cases(_maker(scratch), numbers, ledger, seed=asked.seed, scratch=scratch, workers=asked.workers)
    print("\n".join(summary(ledger.rows())))


def _todo(asked: argparse.Namespace, what: str, cases: int) -> tuple[Ledger, list[int]]:
    """The ledger and the numbers of the cases. With --again: those that broke, and a new ledger."""
    ledger = Ledger(asked.out / f"{what}-{asked.seed}.jsonl")
    if not asked.again:
        return ledger, list(range(cases))
    broken = sorted(int(str(row["case"])) for row in ledger.rows() if row.get("fault"))
    again = Ledger(asked.out / f"{what}-{asked.seed}-again.jsonl")
    again.path.unlink(missing_ok=True)
    return again, broken


def _maker(scratch: Path) -> MakeCase:
    from campaign.inputs import KINDS, chosen
    from campaign.originals import build

    originals = scratch / "originals"
    build(originals)

    def make(number: int, rng: Random, box: Sandbox) -> tuple[str, Case]:
        kind = chosen(number)
        return kind, KINDS[kind](originals, rng, box)

    return make


def _case(asked: argparse.Namespace, scratch: Path) -> None:
    box = Sandbox(scratch / "a/b/c/box")
    make = _maker(scratch)
    box.clear()
    kind, case = make(asked.number, Random(f"{asked.seed}/{asked.number}"), box)
    print(f"{kind}: {case.tried}")
    limit_memory(2 << 30)
    signal.alarm(30)
    try:
        case.act()
        print("success")
    except Exception:
        traceback.print_exc(file=sys.stdout)


def _kills(asked: argparse.Namespace, scratch: Path) -> None:
    from campaign.kills import run_kills

    ledger, numbers = _todo(asked, "kills", asked.cases or 1000)
    run_kills(numbers, ledger, seed=asked.seed, scratch=scratch, workers=asked.workers, only=asked.only)
    print("\n".join(summary(ledger.rows())))


def _versions(asked: argparse.Namespace, scratch: Path) -> None:
    from campaign.versions import compare

    print("\n".join(compare(asked.before, scratch)))


def _summary(asked: argparse.Namespace, scratch: Path) -> None:
    for path in sorted(asked.out.glob("*.jsonl")):
        print(path.name)
        print("\n".join(summary(Ledger(path).rows())))


if __name__ == "__main__":
    main()
