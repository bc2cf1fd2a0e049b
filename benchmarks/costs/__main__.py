"""Command line of the study."""

import argparse

import benchmarks.costs
from benchmarks.costs import errors, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=benchmarks.costs.__doc__)
    parser.add_argument("part", choices=("table", "errors"))
    parser.add_argument("pattern", nargs="?", default="*", help="of paths under the repository (default: all paper recipes)")
    arguments = parser.parse_args()
    if arguments.part == "errors":
        errors.write()
    else:
        table.write(arguments.pattern)


if __name__ == "__main__":
    main()
