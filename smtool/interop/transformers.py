"""Published diffusion transformers: weights of SiT, REPA and U-ViT, whose architecture is read off names and shapes."""

import argparse
import math
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from smtool.errors import CheckpointError
from smtool.networks.sit import SiT
from smtool.networks.transformer import MAX_PERIOD, LatentTransformer, TransformerSection
from smtool.networks.uvit import UViT
from smtool.storage import read_tensors

Family = Literal["SiT", "REPA", "U-ViT"]
Kind = TypeVar("Kind", bound=TransformerSection)
Architecture = tuple[SiT | UViT, tuple[int, int, int], int]
"""Section, latent shape (C, h, w), number of classes."""
_NESTED = ("ema", "nnet_ema", "model", "state_dict")
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")
_KNOWN = "SiT (x_embedder., blocks.), REPA (the same with projectors.) and U-ViT (patch_embed., in_blocks.)"


@dataclass(frozen=True)
class PublishedTransformer:
    """Weights under our names and in our convention of time (data at t = 0), and the network that they are of.

    latent_shape: (C, h, w); num_classes: 0 if unconditional; process: what the family was trained with. averaged: whether the
    file calls them an average; None where it holds one set of weights without saying which. step: None where it is not said.
    """

    family: Family
    section: SiT | UViT
    latent_shape: tuple[int, int, int]
    num_classes: int
    process: Literal["flow", "ddpm"]
    averaged: bool | None
    step: int | None
    tensors: Mapping[str, Tensor]

    def build(self) -> LatentTransformer:
        with torch.device("meta"):
            network = self.section.build(self.latent_shape, self.num_classes)
        network.load_state_dict(dict(self.tensors), assign=True)
        return network

    @property
    def description(self) -> str:
        section, grid = self.section, "x".join(map(str, self.latent_shape))
        size = section.size if section.size != "custom" else f"{section.depth} blocks of {section.width}"
        classes = f"{self.num_classes} classes" if self.num_classes else "unconditional"
        return f"{self.family}-{size}/{section.patch} for latents of {grid}, {classes}"


def read_transformer(path: Path, *, heads: int | None = None) -> PublishedTransformer:
    """Of a .pt, .pth or .safetensors file; of several sets of weights in it, the average.

    heads: attention heads, which no shape shows; needed for sizes that were not published. A file of SiT, whose last layer has
    twice the channels, is turned into our convention exactly: its time runs from noise to data, and its velocity with it. DiT
    has the very names and shapes of SiT, but predicts noise: such a file cannot be told from SiT's, and gives no images.
    """
    content = _opened(path)
    nested = next((key for key in _NESTED if isinstance(content.get(key), Mapping)), None)
    state = content if nested is None else content[nested]
    tensors = {_WRAPPERS.sub("", name): value.float() for name, value in state.items() if isinstance(value, Tensor)}
    family = _family(path, tensors)
    try:
        tensors = _in_one_row(tensors)
        section, shape, num_classes = _uvit(tensors, heads) if family == "U-ViT" else _sit(tensors, heads)
        if family == "SiT":
            tensors = _time_reversed(_without_variance(tensors, shape[0], section.patch))
    except (KeyError, IndexError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else f"{error} is missing or misshapen"
        raise CheckpointError(f"{path} looks like {family}, but is not a whole one of a known form: {reason}.") from error
    published = PublishedTransformer(
        family,
        section,
        shape,
        num_classes,
        "ddpm" if family == "U-ViT" else "flow",
        None if nested is None else "ema" in nested,
        step if isinstance(step := content.get("steps"), int) else None,
        {name: value for name, value in tensors.items() if not name.startswith("projectors.")},
    )
    _check(path, published)
    return published


def _opened(path: Path) -> Mapping[str, Any]:
    """A file's dictionary. Of pickles only plain tensors are let in, and argparse.Namespace, in which REPA keeps its options."""
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is not a readable file of plain tensors ({str(error).splitlines()[0]}).",
            hint="Save its state dict alone, with torch.save or as safetensors.",
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, but named tensors are needed.")
    return content


def _family(path: Path, tensors: Mapping[str, Tensor]) -> Family:
    if "in_blocks.0.attn.qkv.weight" in tensors:
        return "U-ViT"
    if "x_embedder.proj.weight" not in tensors or "final_layer.linear.weight" not in tensors:
        found = ", ".join(sorted({name.split(".")[0] for name in tensors})[:6]) or "no tensors"
        raise CheckpointError(f"{path} holds {found}: no transformer that is known.", hint=f"There are {_KNOWN}.")
    _, channels, patch, _ = tensors["x_embedder.proj.weight"].shape
    doubled = len(tensors["final_layer.linear.weight"]) == 2 * channels * patch**2
    return "SiT" if doubled else "REPA"


def _sit(tensors: Mapping[str, Tensor], heads: int | None) -> Architecture:
    """Facts section 8.1; the last row of the classes stands for none."""
    width, channels, patch, _ = tensors["x_embedder.proj.weight"].shape
    table = tensors.get("y_embedder.embedding_table.weight")
    section = _section(SiT, _count(tensors, "blocks"), width, patch, heads)
    side = _side(tensors["pos_embed"].shape[1]) * patch
    return section, (channels, side, side), 0 if table is None else len(table) - 1


def _uvit(tensors: Mapping[str, Tensor], heads: int | None) -> Architecture:
    """Facts section 7; tokens are [class, if there are classes; time; patches]."""
    width, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
    table = tensors.get("label_emb.weight")
    section = _section(UViT, 2 * _count(tensors, "in_blocks"), width, patch, heads)
    section = section.model_copy(update={"final_conv": "final_layer.weight" in tensors})
    side = _side(tensors["pos_embed"].shape[1] - (1 if table is None else 2)) * patch
    return section, (channels, side, side), 0 if table is None else len(table) - 1


def _section(kind: type[Kind], depth: int, width: int, patch: int, heads: int | None) -> Kind:
    """The published size of this depth and width, unless other heads are given."""
    for size, shape in kind.SIZES.items():
        if (shape.depth, shape.width) == (depth, width) and heads in (None, shape.heads):
            return kind(size=size, patch=patch)
    if heads is None:
        raise CheckpointError(
            f"{depth} blocks of width {width} are no published size of {kind.__name__}, and weights do not show how many heads.",
            hint=f"Say it: --heads {max(1, width // 64)}, if each is 64 wide.",
        )
    return kind(size="custom", depth=depth, width=width, heads=heads, patch=patch)


def _in_one_row(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """REPA's first files call the blocks after the aligned one decoder_blocks."""
    first = _count(tensors, "blocks")
    return {
        re.sub(r"^decoder_blocks\.(\d+)\.", lambda match: f"blocks.{first + int(match[1])}.", name): value
        for name, value in tensors.items()
    }


def _without_variance(tensors: dict[str, Tensor], channels: int, patch: int) -> dict[str, Tensor]:
    """SiT's last layer without the half of its channels that it throws away."""
    kept = {
        name: tensors[name].unflatten(0, (patch, patch, 2 * channels))[:, :, :channels].flatten(0, 2)
        for name in ("final_layer.linear.weight", "final_layer.linear.bias")
    }
    return {**tensors, **kept}


def _time_reversed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A velocity v(x, t) with data at t = 1 -> -v(x, 1 - t), with data at t = 0.

    cos and sin of (1 - t) f are sums of cos and sin of t f, so the first layer of the time takes the turn in.
    """
    name = "t_embedder.mlp.0.weight"
    cosine, sine = tensors[name].double().chunk(2, dim=1)
    half = cosine.shape[1]
    frequency = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(MAX_PERIOD) / half))
    turned = [cosine * frequency.cos() + sine * frequency.sin(), cosine * frequency.sin() - sine * frequency.cos()]
    last = {f"final_layer.linear.{part}": -tensors[f"final_layer.linear.{part}"] for part in ("weight", "bias")}
    return {**tensors, name: torch.cat(turned, 1).float(), **last}


def _check(path: Path, published: PublishedTransformer) -> None:
    """Every tensor has its place and shape, and none is left over: a variant of the network is not passed off as it."""
    with torch.device("meta"):
        expected = published.section.build(published.latent_shape, published.num_classes).state_dict()
    names = sorted(expected.keys() ^ published.tensors.keys())
    names += [name for name in expected if name not in names and expected[name].shape != published.tensors[name].shape]
    if names:
        name = names[0]
        what = "lacks" if name not in published.tensors else "has" if name not in expected else "has another shape of"
        raise CheckpointError(
            f"{path} is read as {published.description}, but {what} {name} ({len(names)} such differences).",
            hint="It is a variant of the published network, which cannot be opened.",
        )


def _count(names: Iterable[str], part: str) -> int:
    return len({name.split(".")[1] for name in names if name.startswith(f"{part}.")})


def _side(tokens: int) -> int:
    side = math.isqrt(tokens)
    if side**2 != tokens:
        raise CheckpointError(f"{tokens} positions are not those of a square latent, and no shape shows which sides it has.")
    return side
