"""Run the study: make the ladders, compute features, count right orders; write a JSON file and a figure of power curves."""

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.judge_study.distances import METRICS
from benchmarks.judge_study.figure import power_figure
from benchmarks.judge_study.ladders import Ladder, all_ladders
from benchmarks.judge_study.power import Row, interval, random_rows, right_orders
from smtool.features.extractor import Extractor
from smtool.features.load import load_extractor
from smtool.inference.features import pooled_features
from smtool.report.plots import figure_bytes

POOLS = {"random": 3000, "resnet56": 1500, "squeezenet": 750}
"""Extractor -> number of images of each level, and of the reference, by its cost. Subsets have at most two thirds of them."""
COUNTS = (125, 250, 500, 1000, 2000)
SUBSETS = 100
BATCH = 100


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge_study", description=__doc__)
    parser.add_argument("--cifar10", default="data/cifar10", help="prepared folder of CIFAR-10 at 32 px")
    parser.add_argument("--faces", default="data/faces32", help="prepared folder of faces at 32 px")
    parser.add_argument("--race", type=Path, default=Path("runs/race-family-spectra"), help="finished race on these faces")
    parser.add_argument("--features", nargs="+", default=list(POOLS), choices=list(POOLS), help="extractors, in this order")
    parser.add_argument("--out", type=Path, default=Path("judge.json"), help="results; those that it already holds are kept")
    parser.add_argument("--figure", type=Path, help="PNG of the power curves")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [Row(**row) for row in json.loads(arguments.out.read_text())] if arguments.out.exists() else []
    done = {(row.features, row.ladder) for row in rows}
    ladders = list(all_ladders(
        arguments.cifar10,
        arguments.faces,
        str(arguments.race / "autoencoders" / "plain-seed0"),
        arguments.race / "transformers" / "plain-seed0" / "ckpt.safetensors",
    )) if {(name, "steps") for name in arguments.features} - done else []  # fmt: skip
    for name in arguments.features:
        for ladder in ladders:
            if (name, ladder.name) not in done:
                rows += measured(ladder, load_extractor(name))
                arguments.out.write_text(json.dumps([row.__dict__ for row in rows], indent=1) + "\n")
                print(name, ladder.name, f"{time.process_time():.0f} core-seconds", flush=True)
    if arguments.figure:
        arguments.figure.write_bytes(figure_bytes(power_figure(rows), "png"))


def measured(ladder: Ladder, extractor: Extractor) -> list[Row]:
    """A row for each metric, number of images and pair of neighbouring levels."""
    pool = POOLS[extractor.name]
    start = time.process_time()
    levels = [pooled_features(extractor, images[:pool].split(BATCH)) for images in ladder.levels.values()]
    reference = pooled_features(extractor, ladder.reference[:pool].split(BATCH))
    cost = (time.process_time() - start) / (len(reference) + sum(map(len, levels)))
    largest = 2 * min(len(reference), *map(len, levels)) // 3
    chosen = random_rows(len(reference), largest, SUBSETS, ladder.name, "reference")
    rows = []
    for metric, make in METRICS.items():
        distances = make(reference, chosen)
        for count in (count for count in COUNTS if count <= largest):
            found = [
                distances(features, random_rows(len(features), largest, SUBSETS, ladder.name, number)[:, :count])
                for number, features in enumerate(levels)
            ]
            amounts = list(ladder.levels)
            for number, (better, worse) in enumerate(pairwise(found)):
                share = right_orders(better, worse)
                low, high = interval(share, SUBSETS)
                rows.append(Row(
                    ladder=ladder.name, title=ladder.title, features=extractor.name, metric=metric, count=count,
                    amounts=(amounts[number], amounts[number + 1]), means=(float(better.mean()), float(worse.mean())),
                    power=share, low=low, high=high, subsets=SUBSETS, ms_per_image=1e3 * cost,
                ))  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
