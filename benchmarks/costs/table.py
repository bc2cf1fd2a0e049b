"""A row for each recipe of the papers: `inspect --cost` on 8 H100, or on as many as divide its batch."""

from fnmatch import fnmatch
from pathlib import Path

from benchmarks.costs.page import PAGE, MarkedTable
from smtool.commands.inspect.cost import recipe_cost
from smtool.commands.inspect.cost_text import amount
from smtool.cost.result import Cost
from smtool.recipe import TrainAE, TrainDiT, kind_of, load

GPU, GPUS = "h100", 8
ROOT = Path(__file__).parents[2]


def paper_recipes() -> list[str]:
    """Paths of all training recipes under recipes/paper, relative to the repository."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "recipes/paper").rglob("*.toml"))


def write(pattern: str = "*", page: Path = PAGE) -> None:
    table, names = MarkedTable(page, "paper recipes"), paper_recipes()
    for name in names:
        if fnmatch(name, pattern):
            table.put(row(name), order=[first(name) for name in names])


def first(name: str) -> str:
    """The first cell of a recipe's row."""
    return f"`{name.removeprefix('recipes/paper/').removesuffix('.toml')}`"


def row(name: str) -> list[str]:
    """Cells of a recipe."""
    path = str(ROOT / name)
    tables = load(path, TrainDiT if kind_of(path) is TrainDiT else TrainAE).tables
    gpus = next(count for count in (GPUS, 4, 2, 1) if tables.data.batch % (count * tables.accumulate) == 0)
    return [first(name), *cells(recipe_cost(path, gpu=GPU, gpus=gpus))]


def cells(cost: Cost) -> list[str]:
    """GPUs, trained parameters, steps, batch, FLOPs, memory of a GPU, images/s, hours, GPU-hours, their floor."""
    large = " (too large)" if cost.memory.total > cost.memory.available else ""
    return [
        str(cost.gpus),
        " + ".join(amount(size, "") for size in cost.parameters.values()),
        f"{cost.steps:,} x {cost.batch:,}",
        amount(cost.flops, ""),
        f"{amount(cost.memory.total, 'B')}{large}",
        f"{cost.images_per_second:,.0f}",
        f"{cost.hours:,.1f}",
        f"{cost.gpu_hours:,.1f}",
        f"{cost.floor_gpu_hours:,.1f}",
    ]
