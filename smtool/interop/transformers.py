"""Published diffusion transformers: weights of SiT, REPA and U-ViT, whose architecture is read off names and shapes."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from smtool.errors import CheckpointError
from smtool.interop.tensor_file import TensorFile
from smtool.networks.sit import SiT
from smtool.networks.transformer import MAX_PERIOD, LatentTransformer, TransformerSection
from smtool.networks.uvit import UViT

Family = Literal["SiT", "REPA", "U-ViT"]
Kind = TypeVar("Kind", bound=TransformerSection)
Architecture = tuple[SiT | UViT, tuple[int, int, int], int]
"""Section, latent shape (C, h, w), number of classes."""
_PLACES = {"ema.": True, "nnet_ema.": True, "model.": False, "state_dict.": None, "": None}
"""Where files keep weights, best first, and whether that says of an average."""
_FIRST_LAYERS = ("x_embedder.proj.weight", "patch_embed.proj.weight")
_KNOWN = "SiT (x_embedder., blocks.), REPA (the same with projectors.) and U-ViT (patch_embed., in_blocks.)"


@dataclass(frozen=True)
class PublishedTransformer:
    """Weights under our names and in our convention of time (data at t = 0), and the network that they are of.

    latent_shape: (C, h, w); num_classes: 0 if unconditional; process: what the family was trained with. averaged: whether the
    file calls them an average; None where it holds one set of weights without saying which.
    """

    family: Family
    section: SiT | UViT
    latent_shape: tuple[int, int, int]
    num_classes: int
    process: Literal["flow", "ddpm"]
    averaged: bool | None
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
    place, tensors = _weights(path)
    family: Family = "U-ViT" if "patch_embed.proj.weight" in tensors else "SiT"
    try:
        family = _family(tensors)
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
        _PLACES[place],
        {name: value for name, value in tensors.items() if not name.startswith("projectors.")},
    )
    _check(path, published)
    return published


def _weights(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The best place of the file that holds a transformer, and its tensors, float32."""
    file = TensorFile(path)
    for place in _PLACES:
        if any(f"{place}{name}" in file.shapes for name in _FIRST_LAYERS):
            return place, file.read({name: name.removeprefix(place) for name in file.shapes if name.startswith(place)})
    found = ", ".join(sorted({name.split(".")[0] for name in file.shapes})[:6]) or "no tensors"
    raise CheckpointError(f"{path} holds {found}: no transformer that is known.", hint=f"There are {_KNOWN}.")


def _family(tensors: Mapping[str, Tensor]) -> Family:
    if "patch_embed.proj.weight" in tensors:
        return "U-ViT"
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
