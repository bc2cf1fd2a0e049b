"""`smtool inspect`."""

from typing import Annotated

import typer

from smtool.cli.app import app


@app.command()
def inspect(
    what: Annotated[str, typer.Argument(help="A recipe, run, checkpoint, autoencoder, or folder that `smtool prepare` wrote.")],
    cost: Annotated[
        bool, typer.Option("--cost", help="Of a recipe: predict memory, time and storage of its training, without running it.")
    ] = False,
    gpu: Annotated[str | None, typer.Option(help="With --cost: h100 (the default), h200, a100 or 4090.")] = None,
    gpus: Annotated[int | None, typer.Option(help="With --cost: number of GPUs that share each batch; 1 if absent.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --cost: print JSON.")] = False,
) -> None:
    """Describe a recipe, a checkpoint or a data folder: parameters, shapes, digests; or what a recipe costs.

    Examples:

    smtool inspect runs/dsm

    smtool inspect recipes/sit.toml

    smtool inspect recipes/paper/table2/f16d16-dsm.ae.toml --cost --gpu a100 --gpus 4
    """
    from smtool.errors import RecipeError
    from smtool.report.console import Console

    if not cost:
        options = {"--gpu": gpu, "--gpus": gpus, "--json": as_json or None}
        if given := [name for name, value in options.items() if value is not None]:
            raise RecipeError(f"{given[0]} has no effect without --cost.", hint="Add --cost, or leave it out.")
        from smtool.commands.inspect.inspection import inspect

        inspect(what, console=Console())
        return
    from smtool.commands.inspect.cost import show_cost

    show_cost(what, gpu=gpu or "h100", gpus=1 if gpus is None else gpus, as_json=as_json, console=Console())
