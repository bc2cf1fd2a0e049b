"""The model card of an exported autoencoder: README.md with its YAML head, and the picture of its power spectrum."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from PIL import Image
from pydantic import ValidationError

from smtool import __version__
from smtool.commands.evaluate.result import ReconstructionEvaluation
from smtool.commands.train.live_spectrum import live_spectrum
from smtool.data.images.builtin import PhotoCrop, distinct_photographs, parse_builtin
from smtool.evaluation.scores import score_table
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import Tokenizer
from smtool.spectrum import fit_delta
from smtool.storage import write_text

LARGEST, CELLS = 512, 16
"""Largest image side that is measured, and the number of latent cells per side that is aimed at (fit_delta needs 8)."""
PICTURE = "spectrum.png"


@dataclass(frozen=True)
class Origin:
    """Where the autoencoder comes from: its name, the folder to search for scores (None: nowhere), metadata of its file."""

    name: str
    folder: Path | None
    metadata: Mapping[str, Any]
    hub_repository: str | None = None


def write_card(folder: Path, autoencoder: Tokenizer, origin: Origin, *, kind: str, notes: Sequence[str] = ()) -> list[Path]:
    """Write README.md and, where it can be measured, spectrum.png. kind: class of diffusers; notes: sections to insert."""
    measured = _spectrum(folder / PICTURE, autoencoder)
    recipe = origin.metadata.get("recipe")
    parts = [
        _head(origin, recipe),
        f"# {autoencoder.label}\n\n{_description(autoencoder)}",
        _use(kind),
        *notes,
        f"## Spectrum\n\n{measured}",
        *_scores(origin, autoencoder.digest),
        *_recipe(recipe, origin.metadata.get("step")),
        f"Written by smtool {__version__} (Spectrum Matching, arXiv 2603.14645) from {origin.name}. "
        f"Digest of the autoencoder: `{autoencoder.digest}`.",
    ]
    write_text(folder / "README.md", "\n\n".join(parts) + "\n")
    return [folder / "README.md", *([folder / PICTURE] if (folder / PICTURE).is_file() else [])]


def _head(origin: Origin, recipe: Any) -> str:
    """The YAML head that the hub reads. The licence is left to the author."""
    methods = list(recipe.get("regularizers", {})) if isinstance(recipe, dict) else []
    tags = ["autoencoder", "vae", "latent-diffusion", "power-spectrum", "smtool", *methods]
    base = [f"base_model: {origin.hub_repository}"] if origin.hub_repository else []
    return "\n".join(["---", "library_name: diffusers", *base, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _description(autoencoder: Tokenizer) -> str:
    count = sum(parameter.numel() for parameter in autoencoder.parameters())
    return (
        f"{autoencoder.architecture}; {count:,} parameters. Latents have {autoencoder.latent_channels} channels and 1/"
        f"{autoencoder.downsample} of the sides of an image. {_normalization(autoencoder.stats)}"
    )


def _normalization(stats: LatentStats | None) -> str:
    if stats is None:
        return "The normalization of its latents is not known: measure mean and standard deviation before training on them."
    source = f"measured on {stats.count:,} samples" if stats.count else "published"
    if stats.kind == "patch":
        return f"Latents are normalized as 2x2 patches by the batch norm `bn` beside the weights ({source})."
    if stats.kind == "channel":
        return f"Latents are normalized per channel with `latents_mean` and `latents_std` of config.json ({source})."
    shift = f"(z - {stats.mean.item():.5g})" if stats.mean.item() else "z"
    return f"Normalized latents are {shift} * {1 / stats.std.item():.5g} ({source})."


def _use(kind: str) -> str:
    opened = f'vae = {kind}.from_pretrained("PATH OR NAME OF THIS FOLDER").eval()'
    return f"## Use\n\n```python\nfrom diffusers import {kind}\n\n{opened}\n```"


@torch.no_grad()
def _spectrum(path: Path, autoencoder: Tokenizer) -> str:
    """Measure the posterior means of built-in photographs, write the picture, and return the section's text."""
    side = min(max(256, CELLS * autoencoder.downsample), LARGEST)
    try:
        if autoencoder.image_channels != 3:
            raise ValueError(f"the built-in photographs have 3 channels, but its images have {autoencoder.image_channels}")
        images = _photographs(side)
        latents = torch.cat([autoencoder.encode(image.to(autoencoder.device)).mode().cpu() for image in images.split(1)])
        normalized = latents / latents.std((0, 2, 3), keepdim=True).clamp(min=1e-12)
        delta = fit_delta(images, normalized)
        note = f"posterior means of {len(images)} photographs of scikit-image, crops of {side} px"
        picture = live_spectrum(images, latents, delta=1.0, note=note)
    except ValueError as error:
        return f"Not measured: {error}."
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path)
    low, high = delta.interval
    return (
        f"![Power spectra of images and latents]({PICTURE})\n\n"
        f"The power of latents falls with frequency by an exponent that is {delta.delta:.2f} lower than that of images "
        f"(delta; 95 % interval {low:.2f} to {high:.2f}). Measured on {note}, each channel at unit variance. "
        "`smtool spectrum` measures more, on your images."
    )


def _photographs(side: int) -> torch.Tensor:
    """(N, 3, side, side) in [-1, 1]: one crop of each photograph of builtin:photos that is large enough, resized by area."""
    asked = parse_builtin(f"builtin:photos?train=1&val={len(distinct_photographs(side))}")
    places = [entry.place for entry in asked.entries(side) if entry.split == "val"]
    squares = [place.image().resize((side, side), Image.Resampling.BOX) for place in places if isinstance(place, PhotoCrop)]
    pixels = np.stack([np.asarray(square.convert("RGB")) for square in squares])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _scores(origin: Origin, digest: str) -> list[str]:
    """A section for each evaluation of this autoencoder (`smtool eval --json`) in its folder."""
    found = []
    for path in sorted(origin.folder.glob("*.json")) if origin.folder is not None else ():
        try:
            evaluation = ReconstructionEvaluation.model_validate_json(path.read_text())
        except (ValidationError, UnicodeDecodeError):
            continue      # another kind of JSON
        if evaluation.checkpoint.sha256 == digest:
            found.append(_score_section(evaluation))
    return found


def _score_section(evaluation: ReconstructionEvaluation) -> str:
    images = evaluation.images
    table = score_table(list(evaluation.scores.values()), "").markdown()
    passports = {name: score.passport.model_dump(mode="json", exclude_none=True) for name, score in evaluation.scores.items()}
    listed = json.dumps(passports, indent=2)
    said = f"Reconstructions of {images.split} images of {images.source} (sha256 {images.sha256[:12]})."
    return "\n\n".join(["## Scores", said, table, *evaluation.sentences(), f"Passports:\n\n```json\n{listed}\n```"])


def _recipe(recipe: Any, step: Any) -> list[str]:
    if not isinstance(recipe, dict) or not recipe:
        return []
    steps = f", {step:,} steps" if isinstance(step, int) else ""
    try:
        text = tomli_w.dumps(recipe)
    except TypeError:      # damaged metadata: a value that TOML does not have
        return []
    return [f"## Recipe\n\nTrained by `smtool train-ae`{steps}:\n\n```toml\n{text}```"]
