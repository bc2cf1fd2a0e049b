"""`smtool export`: write an autoencoder for diffusers or smtool, or a published transformer as a checkpoint of smtool."""

from pathlib import Path
from typing import Literal

import torch

from smtool.checkpoints import write_autoencoder
from smtool.checkpoints.foreign.export_diffusers import write_diffusers
from smtool.errors import CheckpointError, RecipeError
from smtool.inference.diffusion_model import write_diffusion
from smtool.inference.published import import_transformer
from smtool.networks.layers import DownsamplePad
from smtool.networks.sd_vae import Autoencoder
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

    what: anything load_autoencoder opens; with `autoencoder`, a published SiT, REPA or U-ViT file. symmetric: see
    write_diffusers. downsample_pad: see load_autoencoder. scale, heads: see import_transformer. half: store the weights of an
    autoencoder as float16.
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
        opened = load_autoencoder(what, downsample_pad=downsample_pad)
        dtype = _round_to_half(what, opened) if half else torch.float32
        if to == "diffusers":
            written = write_diffusers(out, opened, symmetric=symmetric, dtype=dtype)
        else:
            written = [_native(what, out, opened, dtype)]
        console.print(_summary(opened))
    for path in written:
        console.print(str(path))
    return written


def _native(what: str, out: Path, autoencoder: Autoencoder, dtype: torch.dtype) -> Path:
    """A file of smtool's keeps what it says of its training."""
    found = identify(what)
    write_autoencoder(out, autoencoder, {**found.metadata, "source": Path(found.place).name}, dtype=dtype)
    return out


def _round_to_half(what: str, autoencoder: Autoencoder) -> torch.dtype:
    """Round the weights, in place, to the values that float16 holds."""
    largest = max(float(weight.abs().max()) for weight in autoencoder.state_dict().values())
    if largest > torch.finfo(torch.float16).max:
        raise CheckpointError(f"{what}: a weight of {largest:.3g} is beyond float16's largest, 65,504.", hint="Leave out --half.")
    autoencoder.half().float()
    return torch.float16


def _transformer(what: str, to: str, out: Path, autoencoder: str, scale: float | None, heads: int | None) -> Path:
    if to != "smtool":
        raise RecipeError("--to diffusers exports autoencoders only.", hint="For a transformer, use --to smtool.")
    if not Path(what).is_file():
        raise CheckpointError(f"{what}: no such file.", hint="Pass the .pt or .safetensors of a SiT, REPA or U-ViT.")
    model = import_transformer(Path(what), autoencoder, scale=scale, heads=heads)
    write_diffusion(out, model, recipe=model.tables.model_dump(mode="json", exclude_none=True))
    return out


def _summary(autoencoder: Autoencoder) -> str:
    config, stats = autoencoder.config, autoencoder.stats
    normalized = "no LatentStats (scaling_factor: null)" if stats is None else f"LatentStats of kind {stats.kind}"
    return (
        f"f{config.downsample}, {config.latent_channels} channels, {config.downsample_pad} padding, {normalized}, "
        f"digest {autoencoder.digest[:12]}"
    )
