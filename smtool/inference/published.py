"""Imports a published transformer with an autoencoder as a diffusion model for `sample` and `export`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from smtool.checkpoints.tensor_file import TensorFile
from smtool.checkpoints.transformers import PublishedTransformer, read_transformer
from smtool.errors import CheckpointError
from smtool.image_shape import ImageSize
from smtool.inference.diffusion_model import DiffusionModel
from smtool.inference.published_process import process_of
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import Tokenizer
from smtool.recipe import TrainDiT
from smtool.storage import tensor_digest
from smtool.tokenizers import identify, open_tokenizer


def import_transformer(
    path: Path,
    autoencoder: str,
    *,
    scale: float | Path | None = None,
    heads: int | None = None,
    snr_scale: float | None = None,
    device: str = "cpu",
) -> DiffusionModel:
    """Load SiT, REPA, LightningDiT, DiT-DH, U-ViT or DCTdiff from a file, for the latents of a tokenizer with a decoder.

    scale: factor of the latents in the transformer's training; None: from the autoencoder's statistics (0.18215 for Stable
    Diffusion), 1 for pixels; a file: the latents' `mean` and `std` per channel, as LightningDiT's latents_stats.pt. heads: see
    read_transformer. snr_scale: see `process_of`. `write_diffusion` writes the result as an ordinary checkpoint. Raises
    CheckpointError if the latents have other channels or are other tokens, or without a scale.
    """
    published = read_transformer(path, heads=heads)
    place = identify(autoencoder).place
    decoder = open_tokenizer(place, device=device)
    channels, *sides = published.latent_shape
    if channels != decoder.latent_channels:
        raise CheckpointError(
            f"{path} is {published.description}, but the latents of {place} have {decoder.latent_channels} channels.",
            hint="Pass the autoencoder that it was trained on.",
        )
    process = process_of(path, published, decoder, place, snr_scale=snr_scale)
    stats = _stats(place, decoder, scale)
    tables = _tables(published, place, process, stats.kind)
    network = published.build().to(device).eval().requires_grad_(False)
    summary = {
        "step": None,
        "weights": {True: "average", False: "last", None: "published"}[published.averaged],
        "image_size": ImageSize(*(side * decoder.downsample for side in sides)).stored,
        "autoencoder_path": place,
        "autoencoder": {"digest": decoder.digest},
        "digest": tensor_digest({f"network.{name}": tensor for name, tensor in network.state_dict().items()}),
        "source": f"{path.name}: {published.description}",
    }
    return DiffusionModel(
        tables,
        network,
        tables.process.build(published.latent_shape),
        stats,
        decoder,
        published.latent_shape,
        published.num_classes,
        summary,
    )


def _stats(place: str, autoencoder: Tokenizer, scale: float | Path | None) -> LatentStats:
    if isinstance(scale, Path):
        return _stats_in(scale, autoencoder.latent_channels)
    if scale is not None:
        return LatentStats("scalar", torch.zeros(1), torch.tensor([1 / scale]), count=0, data="given")
    if autoencoder.stats is None:
        raise CheckpointError(
            f"{place} does not state the scale of its latents.",
            hint="Pass the factor that latents were multiplied by for this transformer, --scale NUMBER, or a file of their mean "
            "and std per channel, --scale FILE",
        )
    return autoencoder.stats


def _stats_in(path: Path, channels: int) -> LatentStats:
    """Statistics per channel of a file with tensors `mean` and `std` of C numbers each."""
    file = TensorFile(path)
    found = file.read({name: name for name in ("mean", "std") if name in file.shapes})
    numbers = {name: tensor.flatten() for name, tensor in found.items()}
    if sorted(numbers) != ["mean", "std"] or any(len(tensor) != channels for tensor in numbers.values()):
        held = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in list(file.shapes.items())[:4])
        raise CheckpointError(
            f"{path} holds {held or 'no tensors'}, but mean and std of {channels} channels are needed.",
            hint="Pass latents_stats.pt of these latents, or a number.",
        )
    return LatentStats("channel", numbers["mean"], numbers["std"], count=0, data="given")


def _tables(published: PublishedTransformer, autoencoder: str, process: Mapping[str, Any], kind: str) -> TrainDiT:
    """A recipe for such a transformer, as far as it is known from files and papers."""
    labels = {"labels": {} if published.config.has_null_class else {"dropout": 0.0}} if published.num_classes else {}
    sampler = {"sampler": {"kind": "dpm-solver-fast", "steps": 50}} if process["kind"] == "vp-sde" else {}
    return TrainDiT.model_validate(
        {
            "steps": 1,
            "data": {"batch": 256},
            "latents": {"autoencoder": autoencoder, "stats": "published" if kind == "patch" else kind},
            "model": published.config.model_dump(),
            "process": process,
            "optimizer": {},
            **labels,
            **sampler,
        }
    )
