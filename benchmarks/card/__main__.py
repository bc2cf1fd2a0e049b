"""Command line."""

import argparse
import platform
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import torch

import benchmarks.card
from benchmarks.card import correctness, jpeg, kernels, rates
from benchmarks.card.findings import Findings, Row
from benchmarks.card.methods import Method, methods
from benchmarks.card.timing import product_rate
from smtool.cost.gpus import installed_gpu

_SECONDS = 470
_OF_METHOD, _OF_KERNEL, _OF_RATE, _OF_COMPILED = 20, 15, 45, 90
"""Time limits in seconds: of the whole run, and of one row."""


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parser().parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("Not run: no CUDA device is here; --device cpu --tiny runs the same code at small sizes.")
        return
    findings = Findings(asked.json, _facts(asked.device), asked.seconds)
    for method in methods():
        if fnmatch(method.name, asked.only):
            _compare(findings, method, asked.device)
    if asked.device != "cpu":      # where the plain operations run
        for name, check in kernels.checks(asked.device, tiny=asked.tiny):
            if fnmatch(name, asked.only):
                findings.add("kernel", name, check, seconds=_OF_KERNEL)
    if fnmatch(jpeg.NAME, asked.only):
        findings.add("decoder", jpeg.NAME, lambda: jpeg.row(asked.device, tiny=asked.tiny), seconds=_OF_KERNEL)
    wanted = [one for one in rates.loads(compiled=asked.compile) if fnmatch(one.name, asked.only)]
    if wanted:
        card = _card(findings, asked)
        for one in wanted:
            limit = _OF_COMPILED if one.compiled else _OF_RATE
            findings.add("rate", one.name, lambda one=one: rates.measure(one, card), seconds=limit)
    print(f"{len(findings.rows)} rows in {asked.json}; {len(findings.failed)} failed.")
    if findings.failed:
        raise SystemExit(1)


def _compare(findings: Findings, method: Method, device: str) -> None:
    """A row for each mode; one that says why, where there is none."""
    found = correctness.compared(method, device)
    for mode in correctness.modes(device):

        def row() -> Row:
            bounds, difference = next(found)
            return difference.row(bounds)

        outcome = findings.add("method", f"{method.name}, {mode.name}", row, seconds=_OF_METHOD)["outcome"]
        if outcome in ("failed", "not run"):
            return


def _card(findings: Findings, asked: argparse.Namespace) -> rates.Card:
    """The card with its peak, given or measured; the row says which."""
    known = installed_gpu(torch.cuda.get_device_name()) if asked.device.startswith("cuda") else None

    def peak() -> Row:
        measured = product_rate(asked.device, side=256 if asked.tiny else 8192)
        return {"measured_tflops": 1e-12 * measured, "used_tflops": asked.peak or 1e-12 * measured}

    row = findings.add("peak", "bf16 matrix product", peak, seconds=_OF_KERNEL)
    return rates.Card(asked.device, 1e12 * row.get("used_tflops", float("nan")), known, asked.tiny)


def _facts(device: str) -> Row:
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "modes": {"fp32": "no TF32", "tf32": "TF32 in convolutions, float32 in products", "bf16": "autocast"},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.card", description=benchmarks.card.__doc__)
    parser.add_argument("--json", type=Path, default=Path("card.json"), help="where results are written (default: card.json)")
    parser.add_argument("--peak", type=float, metavar="TFLOPS", help="of bf16 products (default: measured in this run)")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="of names of rows, such as 'regularizer*'")
    parser.add_argument("--compile", choices=("both", "on", "off"), default="both", help="rates with torch.compile")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help=f"of the whole run (default: {_SECONDS})")
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--tiny", action="store_true", help="rates and kernels at sizes for a test")
    return parser


if __name__ == "__main__":
    main()
