"""Command line: which trainer, at what size, and where its checkout is."""

import argparse
import importlib.util
import time
from pathlib import Path

import torch
from rich.console import Console

import benchmarks.released
from benchmarks.__main__ import table
from benchmarks.released import given_draws  # noqa: F401  its folder makes the next import possible

TOLERANCE = 1e-3
"""Largest accepted relative difference of a loss, in float32 after some updates."""
FACTOR, FACTOR_TOLERANCE = "adp_weight", 1e-2
"""The same for the adaptive weight of the adversarial loss, a ratio of norms of two gradients. Rounding reaches it first: AdamW's
first updates have the size of the learning rate, whatever the gradient, so that the sign of a gradient near 0 decides."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.released", description=benchmarks.released.__doc__)
    parser.add_argument("trainer", choices=("autoencoder", "repa"))
    parser.add_argument("--reference", type=Path, default=Path("reference"), help="folder of the checkouts (default: reference)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=64, help="of the images of the autoencoder, in pixels (default: 64)")
    parser.add_argument("--config", default="ldm_f16d16", help="of the autoencoder, in the checkout (default: ldm_f16d16)")
    parser.add_argument("--before", type=int, default=5, help="steps before the discriminator (default: 5)")
    parser.add_argument("--steps", type=int, default=8, help="steps with the discriminator, or of REPA (default: 8)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true", help="measure wall time in place of the CPU time of this process")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.perf_counter if arguments.wall else time.process_time
    checkout = _checkout(arguments.trainer, arguments.reference)
    if isinstance(checkout, str):
        print(f"Not run: {checkout}")
        return
    if arguments.trainer == "repa":
        from benchmarks.released.repa import compare as compare_repa

        rows, differences = compare_repa(checkout, clock, batch=arguments.batch, steps=arguments.steps)
    else:
        from benchmarks.released.autoencoder import compare as compare_autoencoder

        rows, differences = compare_autoencoder(
            checkout, clock, side=arguments.side, batch=arguments.batch, config=arguments.config, before=arguments.before,
            playing=arguments.steps,
        )  # fmt: skip
    for words, bound in (("losses", TOLERANCE), ("adaptive weight", FACTOR_TOLERANCE)):
        found = [one for one in differences if (one.name == FACTOR) == (bound == FACTOR_TOLERANCE)]
        if found:
            print(f"{words}: largest relative difference {max(found)}; the first is {found[0]}")
            if max(found).value > bound:
                raise SystemExit(f"They differ by more than {bound:g}: times of different computations are not compared.")
    console = Console(width=150)
    console.print(table({arguments.trainer: rows}, {"torch": torch.__version__, "clock": "wall" if arguments.wall else "CPU"}))


def _checkout(trainer: str, reference: Path) -> Path | str:
    """The path of the checkout, or one sentence that says what is missing."""
    from recorder.checkouts import ESM_TRAINER, REPA

    wanted = REPA if trainer == "repa" else ESM_TRAINER
    if importlib.util.find_spec("accelerate") is None:
        return "released trainers need the package accelerate: pip install accelerate."
    try:
        return wanted.open(reference)
    except SystemExit as error:
        return str(error)


if __name__ == "__main__":
    main()
