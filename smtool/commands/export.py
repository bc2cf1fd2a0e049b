"""`smtool export`: write an autoencoder for diffusers or smtool, or a published transformer as a checkpoint of smtool."""

from pathlib import Path
from typing import Literal

import torch

from smtool.checkpoints import write_autoencoder
from smtool.commands.export_folder import number_format, round_to_half, write_folder
from smtool.errors import CheckpointError, RecipeError
from smtool.inference.diffusion_model import write_diffusion
from smtool.inference.published import import_transformer
from smtool.networks.layers import DownsamplePad
from smtool.networks.sd_vae import Autoencoder
from smtool.networks.tokenizer import Tokenizer
from smtool.report.console import Console
from smtool.tokenizers import identify, load_autoencoder


def export(
    what: str,
    *,
    to: Literal["diffusers", "smtool"],
    out: Path,
    symmetric: bool = False,
    downsample_pad: DownsamplePad | None = None,
    autoencoder: str | None = None,
    scale: float | None = None,
    heads: int | None = None,
    half: bool = False,
    console: Console,
) -> list[Path]:
    """Write `what` to `out` (a folder for diffusers, a .safetensors file for smtool), which must not exist yet.

    what: anything load_autoencoder opens, for diffusers also what diffusers runs; with `autoencoder`, a published SiT, REPA or
    U-ViT file. symmetric: unlike_padding of write_diffusers. downsample_pad: see load_autoencoder. scale, heads: see
    import_transformer. half: store the weights of an autoencoder as float16; else they keep their number format.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RecipeError(f"--out {out} already exists.", hint="Choose a new path.")
    if to == "smtool" and out.suffix != ".safetensors":
        raise RecipeError(f"--out {out}: --to smtool writes a .safetensors file.", hint=f"Use {out}/ckpt.safetensors.")
    if half and autoencoder is not None:
        raise RecipeError("--half stores autoencoders only.", hint="Leave it out for a transformer.")
    if autoencoder is not None:
        written = [_transformer(what, to, out, autoencoder, scale, heads)]
    else:
        if to == "diffusers":
            opened, written = write_folder(what, out, unlike_padding=symmetric, downsample_pad=downsample_pad, half=half)
        else:
            opened = network = load_autoencoder(what, downsample_pad=downsample_pad)
            dtype = round_to_half(what, network) if half else number_format(identify(what))
            written = [_native(what, out, network, dtype)]
        console.print(_summary(opened))
    for path in written:
        console.print(str(path))
    return written


def _native(what: str, out: Path, autoencoder: Autoencoder, dtype: torch.dtype) -> Path:
    """A file of smtool's keeps what it says of its training."""
    found = identify(what)
    write_autoencoder(out, autoencoder, {**found.metadata, "source": Path(found.place).name}, dtype=dtype)
    return out


def _transformer(what: str, to: str, out: Path, autoencoder: str, scale: float | None, heads: int | None) -> Path:
    if to != "smtool":
        raise RecipeError("--to diffusers exports autoencoders only.", hint="For a transformer, use --to smtool.")
    if not Path(what).is_file():
        raise CheckpointError(f"{what}: no such file.", hint="Pass the .pt or .safetensors of a SiT, REPA or U-ViT.")
    model = import_transformer(Path(what), autoencoder, scale=scale, heads=heads)
    write_diffusion(out, model, recipe=model.tables.model_dump(mode="json", exclude_none=True))
    return out


def _summary(autoencoder: Tokenizer) -> str:
    stats = autoencoder.stats
    normalized = "no LatentStats (scaling_factor: null)" if stats is None else f"LatentStats of kind {stats.kind}"
    return f"{autoencoder.architecture}, {normalized}, digest {autoencoder.digest[:12]}"
