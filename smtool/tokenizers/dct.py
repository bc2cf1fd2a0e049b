"""`dct:BxM`: blocks of DCT coefficients as latents, for diffusion without a trained autoencoder (DCTdiff, arXiv 2412.15032).

`dct:2x4` has luma blocks of 2x2 pixels, of which 4 coefficients are kept. Settings follow after commas:
`dct:4x9,chroma=444,eta=480.25`. They are chroma (420, 444) and eta (a number, a published set such as cifar10, or measured).
"""

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from smtool.config import Config
from smtool.errors import RecipeError
from smtool.metrics.reconstruction import psnr
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import point_posterior
from smtool.spectrum.entropy import percentile_bound
from smtool.tokenizers.block_dct import Chroma, channel_groups, from_tokens, to_tokens
from smtool.tokenizers.functions import FunctionTokenizer
from smtool.tokenizers.published_dct import PUBLISHED

PREFIX = "dct:"
BLOCKS = (2, 4, 8, 16, 32)
STALE = 0.02
"""Largest relative distance of a given eta from the measured one that is not reported."""
LOSSLESS_DB = 90.0
"""PSNR above which only float32 rounding is left."""
_MEASURED = "measured"
_NAME = re.compile(r"dct:(\d{1,4})x(\d{1,6})((?:,[^,]*)*)")


class DCT(Config):
    """The description of a DCT tokenizer in a checkpoint. block: side of a block; kept: coefficients of a block that are kept;
    eta: what coefficients are divided by; eta_of: where eta comes from, in words, for messages."""

    kind: Literal["dct"] = "dct"
    block: int
    kept: int = Field(ge=1)
    chroma: Chroma = "420"
    eta: float = Field(gt=0, allow_inf_nan=False)
    eta_of: str = "given"

    @model_validator(mode="after")
    def _is_possible(self) -> "DCT":
        if self.block not in BLOCKS:
            raise ValueError(f"the block side must be one of {', '.join(map(str, BLOCKS))}, but is {self.block}")
        if self.kept > self.block**2:
            raise ValueError(f"a block of {self.block}x{self.block} has {self.block**2} coefficients, not {self.kept}")
        return self

    @property
    def name(self) -> str:
        """The name that opens this tokenizer."""
        chroma = "" if self.chroma == "420" else f",chroma={self.chroma}"
        return f"{PREFIX}{self.block}x{self.kept}{chroma},eta={self.eta:.9g}"

    @property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """(blocks, coefficients) of Y, Cb and Cr in the order of channels."""
        return channel_groups(self.kept, self.chroma)

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments of `to_tokens` and `from_tokens`."""
        return self.model_dump(include={"block", "kept", "chroma", "eta"})

    def build(self) -> FunctionTokenizer:
        channels, side = sum(blocks * kept for blocks, kept in self.groups), 2 * self.block
        made = FunctionTokenizer(
            partial(_encoded, settings=self.settings),
            partial(from_tokens, **self.settings),
            network=None,
            label=f"dct-{self.block}x{self.kept}" + ("" if self.chroma == "420" else "-444"),
            source=self.name,
            architecture=f"dct f{side}, {channels} channels: {self.kept} of {self.block**2} DCT coefficients of "
            f"{self.block}x{self.block} blocks, chroma 4:{':'.join(self.chroma[1:])}, eta {self.eta:.9g} ({self.eta_of})",
            digest=hashlib.sha256(self.name.encode()).hexdigest(),
            downsample=side,
            latent_channels=channels,
            stats=LatentStats("scalar", torch.zeros(1, device="cpu"), torch.ones(1, device="cpu"), 0, "divided by eta"),
            deterministic=True,
            config=self,
        )
        made.channel_groups, made.scaled_by_bound = self.groups, True
        return made


def is_dct(name: str) -> bool:
    """Whether a name is one of a DCT tokenizer."""
    return name.startswith(PREFIX)


def needs_measured_eta(name: str) -> bool:
    """Whether a name leaves eta to be measured on images, as in `dct:2x4,eta=measured`."""
    return is_dct(name) and _parsed(name).eta == _MEASURED


def dct(name: str, *, measured: float | None = None) -> DCT:
    """The description that a name gives. measured: eta for a name that leaves it to be measured.

    Without eta it is 128 * block, the largest luma coefficient there can be. Raises RecipeError, in one sentence, for a name that
    is not possible, and for eta=measured without images.
    """
    asked = _parsed(name)
    eta, of = _eta(name, asked, measured)
    try:
        return DCT(block=asked.block, kept=asked.kept, chroma=asked.chroma, eta=eta, eta_of=of)
    except ValueError as error:
        raise RecipeError(f"{name}: {_reason(error)}.") from error


def measured_eta_of(dc: Tensor) -> float:
    """DCTdiff's eta, to three decimals: `percentile_bound` of the luma blocks' DC coefficients (`luma_dc`)."""
    return round(percentile_bound(dc), 3)


def luma_dc(images: Tensor, block: int) -> Tensor:
    """The DC coefficients of all luma blocks of images (N, 3, H, W) in [-1, 1], as (N, 4, h, w), in levels of 256."""
    return to_tokens(images, block=block, kept=1, chroma="420", eta=1.0)[:, :4]


def stale_eta(description: DCT, measured: float, images: str) -> str | None:
    """A sentence that names both if an eta that was chosen is more than 2 % away from that of `images`; else None."""
    chosen = description.eta
    if description.eta_of == _DEFAULT or abs(chosen / measured - 1) <= STALE:
        return None
    return (f"eta {chosen:.9g} of {description.name} ({description.eta_of}) is not that of {images}, {measured:.9g}: "
            f"eta={_MEASURED} uses theirs.")


def round_trip_losses(description: DCT, images: Tensor) -> dict[str, float | None]:
    """PSNR in dB of a round trip of images (N, 3, H, W) in [-1, 1], mean over images, for each thing that is lost, alone.

    "chroma": only the halving of chroma; "coefficients": only those that are not kept; "clip": only the limit of 2 eta;
    "all": the tokenizer itself. None: nothing but float32 rounding. Decoded images are clamped to [-1, 1] and not rounded.
    """
    everything: dict[str, Any] = {**description.settings, "kept": description.block**2, "chroma": "444"}
    trips = {
        "chroma": ({**everything, "chroma": description.chroma}, False),
        "coefficients": ({**everything, "kept": description.kept}, False),
        "clip": (everything, True),
        "all": (description.settings, True),
    }
    found = {}
    for name, (settings, clip) in trips.items():
        back = from_tokens(to_tokens(images, **settings), clip=clip, **settings)
        value = psnr(back.clamp(-1, 1), images).mean().item()
        found[name] = value if value < LOSSLESS_DB else None
    return found


@dataclass(frozen=True)
class _Asked:
    block: int
    kept: int
    chroma: Chroma
    eta: str


_DEFAULT = "128 times the block side, the default: not measured"
_FORM = "Names are dct:BxM, such as dct:2x4 or dct:4x9,chroma=444,eta=480.25: B is the block side, M the coefficients kept."


def _encoded(images: Tensor, *, settings: dict[str, Any]) -> Any:
    return point_posterior(to_tokens(images, **settings))


def _parsed(name: str) -> _Asked:
    found = _NAME.fullmatch(name)
    if found is None:
        raise RecipeError(f"{name} is no DCT tokenizer.", hint=_FORM)
    values = {"chroma": "420", "eta": ""}
    for pair in found[3].split(",")[1:]:
        key, separator, text = pair.partition("=")
        if key not in values or not separator:
            raise RecipeError(f"{name}: there is no setting {pair!r}.", hint="There are chroma (420 or 444) and eta "
                              f"(a number, {_MEASURED}, or a published one: {', '.join(PUBLISHED)}).")
        values[key] = text
    if values["chroma"] not in ("420", "444"):
        raise RecipeError(f"{name}: chroma is {values['chroma']!r}, but must be 420 or 444.")
    return _Asked(int(found[1]), int(found[2]), values["chroma"], values["eta"])  # type: ignore[arg-type]


def _eta(name: str, asked: _Asked, measured: float | None) -> tuple[float, str]:
    """eta and where it comes from."""
    if asked.eta == "":
        return 128.0 * asked.block, _DEFAULT
    if asked.eta == _MEASURED:
        if measured is None:
            raise RecipeError(f"{name}: eta is measured by `prepare --latents`, `train-dit` and `race` only.",
                              hint="Write the number that `prepare --latents` prints in place of `measured`.")
        return measured, "measured on the images"
    if asked.eta in PUBLISHED:
        published = PUBLISHED[asked.eta]
        if published.block != asked.block:
            raise RecipeError(f"{name}: the published eta of {asked.eta} is for blocks of {published.block}, not {asked.block}.")
        return published.eta, f"published for {asked.eta}"
    try:
        return float(asked.eta), "given"
    except ValueError as error:
        raise RecipeError(f"{name}: eta is {asked.eta!r}, but must be a positive number, {_MEASURED}, or one of "
                          f"{', '.join(PUBLISHED)}.") from error


def _reason(error: ValueError) -> str:
    """The first problem of a validation, in words."""
    first = error.errors()[0] if hasattr(error, "errors") else {"loc": (), "msg": str(error)}
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else str(first["msg"]).removeprefix("Value error, ")
