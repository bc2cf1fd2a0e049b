"""Settings of an SD-VAE that its weights do not show: padding and norm groups. They may be given behind a name, after commas:
`vae.safetensors,padding=reflect,norm_groups=16`."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from smtool.errors import RecipeError
from smtool.networks.layers import DownsamplePad, Padding

_GIVEN = re.compile(r"(.+?)((?:,\w*=[^,=]*)+)")
_REFLECTED = re.compile(r"MS-LC-EQ|EQB\d|pad[ _-]?flux[ _-]?eq|reflect", re.IGNORECASE)
"""Names of published autoencoders that are trained with reflected edges (kohya-ss/sd-scripts#2189)."""


@dataclass(frozen=True)
class Settings:
    """None: as the file, its config.json or its name says, else as published in its format."""

    downsample_pad: DownsamplePad | None = None
    padding: Padding | None = None
    norm_groups: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def suffix(self) -> str:
        """The settings as they are written behind a name."""
        return "".join(f",{name}={value}" for name, value in self.given.items())


AS_STATED = Settings()


def split_settings(name: str) -> tuple[str, Settings]:
    """(name without settings, settings) of `NAME,key=value,...`. Raises RecipeError for an unknown key or value."""
    found = _GIVEN.fullmatch(name)
    if found is None or Path(name).exists():
        return name, Settings()
    values: dict[str, Any] = {}
    for key, text in (pair.split("=", 1) for pair in found[2][1:].split(",")):
        values[key] = _value(name, key, text)
    return found[1], Settings(**values)


def padding_by_name(path: Path) -> Padding:
    """The padding of published autoencoders of this file name, or of this name of a folder or hub repository around it."""
    hub = [part for part in path.absolute().parts if part.startswith("models--")]
    return "reflect" if any(_REFLECTED.search(name) for name in (path.name, path.absolute().parent.name, *hub)) else "zeros"


def _value(name: str, key: str, text: str) -> str | int:
    words = {"downsample_pad": get_args(DownsamplePad), "padding": get_args(Padding)}
    if key == "norm_groups" and text.isdecimal() and int(text) > 0:
        return int(text)
    if text in words.get(key, ()):
        return text
    known = {**{one: " or ".join(values) for one, values in words.items()}, "norm_groups": "a positive integer"}
    if key in known:
        raise RecipeError(f"{name}: {key} is {text!r}, but must be {known[key]}.")
    listed = ", ".join(f"{one} ({values})" for one, values in known.items())
    raise RecipeError(f"{name}: there is no setting {key!r}.", hint=f"There are {listed}.")
