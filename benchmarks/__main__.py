"""Run the benchmarks of this folder and print one table of ratios."""

import argparse
import importlib
import json
import os
import pkgutil
import platform
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import benchmarks
from benchmarks import Row


def main() -> None:
    found = pkgutil.iter_modules(benchmarks.__path__)      # a package is a study with a command of its own
    modules = sorted(module.name for module in found if not module.ispkg and not module.name.startswith("_"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"benchmarks to run (default: all): {', '.join(modules)}")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the rows and facts about the machine to this file")
    parser.add_argument("--threads", type=int, default=2, help="number of torch threads (default: 2)")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.modules) - set(modules)):
        parser.error(f"unknown benchmark: {', '.join(unknown)}. Available: {', '.join(modules)}")
    torch.set_num_threads(arguments.threads)
    machine = {
        "cpus": os.cpu_count(),
        "threads": arguments.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }
    rows = {name: importlib.import_module(f"benchmarks.{name}").run() for name in arguments.modules or modules}
    machine["load after"] = f"{os.getloadavg()[0]:.1f}"
    console = Console()
    console.width = max(console.width, 120)  # rows must not wrap
    console.print(table(rows, machine))
    if arguments.json:
        figures = [{"module": name, **asdict(row), "ratio": row.ratio} for name, found in rows.items() for row in found]
        document = {"machine": machine, "rows": figures}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


def table(rows: dict[str, list[Row]], machine: dict[str, object]) -> Table:
    result = Table(title=", ".join(f"{key} {value}" for key, value in machine.items()), title_justify="left")
    for column in ("", "ours", "yardstick", "against", "ratio", "of best", "aim"):
        result.add_column(column, justify="left" if column in ("", "against") else "right")
    for name, module_rows in rows.items():
        result.add_section()
        for row in module_rows:
            yardstick = "" if row.yardstick is None else f"{row.yardstick:.3g} {row.unit}"
            ratio, best = ("" if value is None else f"{value:.2f}" for value in (row.ratio, row.best_ratio))
            aim = "" if row.aim is None else f"{row.aim:.2g}"
            result.add_row(f"{name}: {row.name}", f"{row.ours:.3g} {row.unit}", yardstick, row.against, ratio, best, aim)
    return result


if __name__ == "__main__":
    main()
