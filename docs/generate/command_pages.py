"""Every command with its arguments and options, from the functions of smtool/cli and their annotations."""

import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from cells import row
from typer.models import ArgumentInfo, OptionInfo

from smtool.cli import app

ORDER = ("prepare", "train-ae", "spectrum", "train-dit", "sample", "eval")
EXAMPLES = {
    "prepare": (
        "smtool prepare builtin:photos --size 64",
        "smtool prepare FOLDER --size 256 --crop center --split 0.02",
        "smtool prepare data/photos-64 --latents runs/dsm",
    ),
    "train-ae": (
        "smtool train-ae recipes/dsm.toml",
        "smtool train-ae recipes/dsm.toml --data data/photos-64 --set steps=5000 --set optimizer.lr=5e-4",
        "smtool train-ae recipes/dsm.toml --dry-run",
    ),
    "spectrum": (
        "smtool spectrum runs/dsm/ckpt.safetensors --plot",
        "smtool spectrum runs/sd-vae runs/dsm images --plot --data data/photos-64 --out spectra",
    ),
    "train-dit": (
        "smtool train-dit recipes/sit.toml",
        "smtool train-dit recipes/sit.toml --set latents.autoencoder=runs/sd-vae --out runs/sit-sd-vae",
    ),
    "sample": (
        "smtool sample runs/sit --num-images 16",
        "smtool sample runs/sit --num-images 50000 --sampler heun --steps 50 --format npz",
    ),
    "eval": (
        "smtool eval runs/dsm --psnr --ssim --features random",
        "smtool eval runs/sit --fid --kid --num-images 10000 --json scores.json --table scores.md",
    ),
    "inspect": ("smtool inspect runs/dsm", "smtool inspect recipes/sit.toml"),
    "quickstart": ("smtool quickstart",),
    "race": ("smtool race runs/sd-vae runs/dsm", "smtool race recipes/race/faces.toml --budget 1h"),
    "recipes copy": ("smtool recipes copy dsm my-dsm.toml",),
    "recipes list": ("smtool recipes list",),
    "recipes show": ("smtool recipes show dsm",),
}
"""Command -> command lines, shown unless the command's own help has examples."""
INTRODUCTION = """\
<!-- Written by `make docs` from smtool/cli; edits here are lost. -->

# Commands

`smtool COMMAND --help` shows the same. `--debug` before or after a command shows the traceback of an error; `smtool --version`
prints the version. What the exit codes mean: [exit codes](exit-codes.md).

"""


def commands_page() -> str:
    """The whole page, Markdown: the six verbs first, then the others."""
    return (INTRODUCTION + "".join(_section(name, function) for name, function in commands())).rstrip() + "\n"


def commands() -> Iterator[tuple[str, Callable[..., None]]]:
    """Name and function; those of a group as `recipes list`."""
    found = dict(_registered(app))
    for group in app.registered_groups:
        prefix = group.name or group.typer_instance.info.name
        found |= {f"{prefix} {name}": one for name, one in _registered(group.typer_instance)}
    for name in sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
        yield name, found[name]


def _registered(where: typer.Typer) -> Iterator[tuple[str, Callable[..., None]]]:
    for one in where.registered_commands:
        yield one.name or one.callback.__name__.replace("_", "-"), one.callback


def _section(name: str, function: Callable[..., None]) -> str:
    parameters = [one for one in inspect.signature(function, eval_str=True).parameters.values() if _info(one) is not None]
    usage = f"smtool {name}"
    for one in parameters:
        if isinstance(_info(one), ArgumentInfo):
            usage += f" {_metavar(one)}" if one.default is inspect.Parameter.empty else f" [{_metavar(one)}]"
    if any(isinstance(_info(one), OptionInfo) for one in parameters):
        usage += " [OPTIONS]"
    text = f"## smtool {name}\n\n```text\n{usage}\n```\n\n{_help(inspect.getdoc(function) or '')}\n\n"
    if "```console" not in text and name in EXAMPLES:
        text += _console(EXAMPLES[name])
    rows = [_row(one) for one in parameters]
    header = "| argument or option | type | default | meaning |\n|---|---|---|---|\n"
    return text + (header + "".join(rows) + "\n" if rows else "")


def _help(text: str) -> str:
    """Paragraphs of a docstring; those that are command lines become a block of code."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", re.sub("[\b\f]", "", text)) if part.strip()]
    return "\n\n".join(_console(part.split("; ")).rstrip() if part.startswith("smtool ") else part for part in paragraphs)


def _console(lines: Iterable[str]) -> str:
    return "```console\n" + "".join(f"$ {line}\n" for line in lines) + "```\n\n"


def _row(parameter: inspect.Parameter) -> str:
    info = _info(parameter)
    shown = _metavar(parameter) if isinstance(info, ArgumentInfo) else ", ".join(_flags(parameter, info))
    return row(f"`{shown}`", _type(parameter, info), _default(parameter), " ".join((info.help or "").split()))


def _info(parameter: inspect.Parameter) -> Any:
    """What typer was told of a parameter; None for one that is no argument and no option."""
    return next((part for part in get_args(parameter.annotation)[1:] if isinstance(part, ArgumentInfo | OptionInfo)), None)


def _metavar(parameter: inspect.Parameter) -> str:
    return str(_info(parameter).metavar or parameter.name.upper())


def _flags(parameter: inspect.Parameter, info: OptionInfo) -> list[str]:
    """Names of an option. Typer keeps the first that is given as `default`; a flag that is on has a name that turns it off."""
    named = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str) and one.startswith("-")]
    flags = named or [f"--{parameter.name.replace('_', '-')}"]
    return [*flags, flags[0].replace("--", "--no-")] if parameter.default is True else flags


def _type(parameter: inspect.Parameter, info: ArgumentInfo | OptionInfo) -> str:
    annotation = get_args(parameter.annotation)[0]
    name = _name(annotation)
    bounds = [f"{sign} {bound:g}" for sign, bound in (("≥", info.min), ("≤", info.max)) if bound is not None]
    repeated = isinstance(info, OptionInfo) and any(get_origin(one) is list for one in [annotation, *get_args(annotation)])
    return ", ".join([name, *bounds, *(["may be repeated"] if repeated else [])])


def _name(annotation: Any) -> str:
    words = {bool: "flag", int: "integer", float: "number", str: "string", Path: "path"}
    if annotation in words:
        return words[annotation]
    if get_origin(annotation) is Literal:
        return " / ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_name(one) for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) in (list, Annotated):
        return _name(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return f"{len(get_args(annotation))} {_name(get_args(annotation)[0])}s"
    return str(getattr(annotation, "__name__", annotation))


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "required"
    if parameter.default is None or isinstance(parameter.default, bool) or parameter.default in ("", ()):
        return "on" if parameter.default is True else ""
    return f"`{parameter.default}`"
