"""`smtool export`: write an autoencoder for diffusers or smtool, or a published transformer as a checkpoint of smtool."""

from pathlib import Path
from typing import Literal

import torch

from smtool.checkpoints import write_autoencoder
from smtool.checkpoints.foreign.origin import Origin, has_patch_norm, write_like
from smtool.commands.align import Alignment, find_alignment
from smtool.commands.export_folder import number_format, round_to_half, write_folder
from smtool.errors import CheckpointError, RecipeError
from smtool.inference.diffusion_model import write_diffusion
from smtool.inference.published import import_transformer
from smtool.networks.layers import DownsamplePad
from smtool.networks.tokenizer import Tokenizer
from smtool.networks.trainable import TrainableAutoencoder
from smtool.report.console import Console
from smtool.tokenizers import Found, identify
from smtool.tokenizers.trainable import open_trainable

Target = Literal["diffusers", "smtool", "original"]


def export(
    what: str,
    *,
    to: Target,
    out: Path,
    symmetric: bool = False,
    downsample_pad: DownsamplePad | None = None,
    autoencoder: str | None = None,
    scale: float | Path | None = None,
    heads: int | None = None,
    snr_scale: float | None = None,
    half: bool = False,
    align: str | None = None,
    data: str | None = None,
    console: Console,
) -> list[Path]:
    """Write `what` to `out` (a .safetensors file for smtool, else a folder), which must not exist yet.

    what: any autoencoder that train-ae can train, for diffusers an SD-VAE or what diffusers runs; with `autoencoder`, the file
    of a published transformer. to: "original" writes a fine-tuned autoencoder with the names and number formats of the file that
    it started from. symmetric: unlike_padding of write_diffusers. downsample_pad: see load_autoencoder. scale, heads,
    snr_scale: see import_transformer. half: store the weights of an autoencoder as float16; else they keep their number format.
    align: the autoencoder in whose coordinates the latents are to be (see find_alignment); data: images to fit this map on.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RecipeError(f"--out {out} already exists.", hint="Choose a new path.")
    if to == "smtool" and out.suffix != ".safetensors":
        raise RecipeError(f"--out {out}: --to smtool writes a .safetensors file.", hint=f"Use {out}/ckpt.safetensors.")
    if half and autoencoder is not None:
        raise RecipeError("--half stores autoencoders only.", hint="Leave it out for a transformer.")
    if align is not None and autoencoder is not None:
        raise RecipeError("--align is for autoencoders only.", hint="Leave it out for a transformer.")
    if data is not None and align is None:
        raise RecipeError("--data has no effect without --align.", hint="Leave it out.")
    alignment = None if align is None else find_alignment(what, align, data=data, downsample_pad=downsample_pad, console=console)
    if autoencoder is not None:
        written = [_transformer(what, to, out, autoencoder, scale, heads, snr_scale)]
    elif to == "original":
        if half or symmetric or downsample_pad:
            raise RecipeError("--to original keeps the original's form: it takes no --half, --symmetric or --downsample-pad.")
        written = _like_original(what, out, alignment, console)
    elif to == "diffusers":
        opened, written = write_folder(
            what, out, unlike_padding=symmetric, downsample_pad=downsample_pad, half=half, alignment=alignment
        )
        console.print(_summary(opened))
    else:
        network = open_trainable(what, downsample_pad=downsample_pad)
        network = network if alignment is None else alignment.folded(network)
        written = [_native(what, out, network, alignment, half=half)]
        console.print(_summary(network))
    for path in written:
        console.print(str(path))
    return written


def _like_original(what: str, out: Path, alignment: Alignment | None, console: Console) -> list[Path]:
    origin = identify(what).metadata.get("origin")
    if origin is None:
        raise CheckpointError(
            f"{what} states no original: it was not fine-tuned from a published file, or its run has not ended.",
            hint="Use --to diffusers or --to smtool; `train-ae` with model.init starts from a published file.",
        )
    network, form = open_trainable(what), Origin.from_metadata(origin)
    found = _located(form)
    assert found.path is not None, "a published file"
    if alignment is not None:
        form = alignment.in_form_of(form, network, of_patches=has_patch_norm(found.path, found.settings))
        network = alignment.folded(network)
    console.print(_summary(network))
    return write_like(form, found.path, network, out, settings=found.settings)


def _located(origin: Origin) -> Found:
    try:
        return identify(origin.place)
    except CheckpointError as error:
        raise CheckpointError(
            f"The original from which this autoencoder was fine-tuned cannot be found any more: {error.message}",
            hint="Restore it, or use --to diffusers or --to smtool.",
        ) from error


def _native(what: str, out: Path, autoencoder: TrainableAutoencoder, alignment: Alignment | None, *, half: bool) -> Path:
    """A file of smtool's keeps what it says of its training. An aligned one is no longer of the form of its original."""
    found = identify(what)
    dtype = number_format(found) if alignment is None else torch.float32
    dtype = round_to_half(what, autoencoder) if half else dtype
    metadata = {**found.metadata, "source": Path(found.place).name}
    if alignment is not None:
        metadata = {key: value for key, value in metadata.items() if key != "origin"} | {"aligned": alignment.to_metadata()}
    write_autoencoder(out, autoencoder, metadata, dtype=dtype)
    return out


def _transformer(
    what: str, to: Target, out: Path, autoencoder: str, scale: float | Path | None, heads: int | None, snr_scale: float | None
) -> Path:
    if to != "smtool":
        raise RecipeError("--to diffusers exports autoencoders only.", hint="For a transformer, use --to smtool.")
    if not Path(what).is_file():
        raise CheckpointError(f"{what}: no such file.", hint="Pass the .pt or .safetensors of a published transformer.")
    model = import_transformer(Path(what), autoencoder, scale=scale, heads=heads, snr_scale=snr_scale)
    write_diffusion(out, model, recipe=model.tables.model_dump(mode="json", exclude_none=True))
    return out


def _summary(autoencoder: Tokenizer) -> str:
    stats = autoencoder.stats
    normalized = "no LatentStats (scaling_factor: null)" if stats is None else f"LatentStats of kind {stats.kind}"
    return f"{autoencoder.architecture}, {normalized}, digest {autoencoder.digest[:12]}"
