"""The pages of the Python reference: what each package exports, grouped by the file that it comes from."""

import ast
from collections.abc import Iterator
from importlib import import_module
from inspect import getdoc, isclass, isfunction
from pathlib import Path

import smtool

PACKAGE = Path(smtool.__file__).parent
PACKAGES = {
    "spectrum": "Pure functions of tensors: PyTorch only, no files, no logging. All names can be imported from\n"
    "`smtool.spectrum`. What the measures mean: [spectral measures](../spectrum.md).",
    "metrics": "Pure functions of tensors. Names are imported from the files below, such as `smtool.metrics.frechet`.",
    "regularizers": "The methods, for `smtool train-ae` and for trainers of your own. A method is a class of keys, listed under\n"
    "[recipe keys](../recipes.md#train-ae-regularizers), whose `build` makes a `Regularizer`, the module with the hooks. All\n"
    "names can be imported from `smtool.regularizers`.",
    "tokenizers": "One interface for every autoencoder. All names can be imported from `smtool.tokenizers`; `open_tokenizer`\n"
    "and `load_autoencoder` also from `smtool`.",
    "checkpoints": "Files of smtool and of other tools. `smtool.tokenizers.open_tokenizer` opens any autoencoder by name.",
    "diffusion": "Processes, samplers, guidance and alignment. The keys of their tables are listed under\n"
    "[recipe keys](../recipes.md#train-dit). All names can be imported from `smtool.diffusion`.",
    "data": "Prepared images and caches of latents. All names can be imported from `smtool.data`.",
}
"""Package -> the introduction of its page."""


def python_page(package: str) -> str:
    """The page of one package, Markdown with the directives of mkdocstrings."""
    text = f"<!-- Written by `make docs` from smtool/{package}; edits here are lost. -->\n\n# smtool.{package}\n\n"
    text += f"{PACKAGES[package]}\n\n"
    for module, names in exports(package).items():
        text += f"::: {module}\n    options:\n      members:\n"
        text += "".join(f"        - {name}\n" for name in names) + "\n"
    return text.rstrip() + "\n"


def exports(package: str) -> dict[str, list[str]]:
    """Module -> public names, in the order of the files' names; all files of a package that exports nothing itself."""
    found: dict[str, list[str]] = {}
    for folder in (package, *(f"{package}/{path.name}" for path in sorted((PACKAGE / package).iterdir()) if path.is_dir())):
        for module, name in _exported(folder):
            found.setdefault(module, []).append(name)
    if not found:
        for path in sorted((PACKAGE / package).glob("[!_]*.py")):
            module = f"smtool.{package}.{path.stem}"
            if names := _defined(module):
                found[module] = names
    return {module: found[module] for module in sorted(found)}


def _exported(folder: str) -> Iterator[tuple[str, str]]:
    """(module, name) of each name that a package's __init__ hands on or defines, and names as public."""
    path = PACKAGE / folder / "__init__.py"
    if not path.is_file():
        return
    here = f"smtool.{folder.replace('/', '.')}"
    public = getattr(import_module(here), "__all__", None)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("smtool."):
            for alias in node.names:
                if alias.asname == alias.name or alias.name in (public or ()):
                    yield node.module, alias.name
        elif isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in (public or ()):
            yield here, node.name
        elif isinstance(node, ast.Assign):
            yield from ((here, name.id) for name in node.targets if isinstance(name, ast.Name) and name.id in (public or ()))


def _defined(module: str) -> list[str]:
    """Public classes and functions that a file defines, in its order."""
    own = vars(import_module(module)).items()
    return [name for name, one in own if name[0] != "_" and (isclass(one) or isfunction(one)) and one.__module__ == module]


def undocumented() -> list[str]:
    """Exported classes and functions without a docstring; mkdocstrings leaves them out."""
    every = ((module, name) for package in PACKAGES for module, names in exports(package).items() for name in names)
    found = ((f"{module}.{name}", getattr(import_module(module), name)) for module, name in every)
    return [name for name, one in found if (isclass(one) or isfunction(one)) and not getdoc(one)]
