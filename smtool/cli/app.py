"""The typer application to which the commands are added, and its options --debug and --version."""

from typing import Annotated

import typer

from smtool import __version__

app = typer.Typer(
    help="Train, measure and compare image autoencoders by the power spectra of their latents, and train diffusion transformers "
    "on these latents (Spectrum Matching, arXiv 2603.14645).",
    epilog="Start with `smtool quickstart`. `smtool recipes list` lists the recipes. `smtool COMMAND --help` explains a command "
    "and shows examples.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. Allowed anywhere on the line.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"smtool {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
