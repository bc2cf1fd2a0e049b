"""`smtool sample`: draw images from a diffusion checkpoint and write them to files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from smtool import __version__, storage
from smtool.checkpoints.diffusion import is_diffusion
from smtool.checkpoints.tensor_file import PICKLED
from smtool.commands.sample.files import LOSSY, Format, SampleFolder, check_passport
from smtool.commands.sample.trace import NUM_TRACED, trace_sampling
from smtool.commands.sample.trace_files import check_beside, read_traces, table, write_trace
from smtool.data.batches import Rounding
from smtool.diffusion import Sampler
from smtool.diffusion.samplers import SAMPLERS
from smtool.errors import CheckpointError, RecipeError
from smtool.features.pictures import ALPHA
from smtool.image_shape import ImageSize
from smtool.inference.diffusion_model import DiffusionModel, find_diffusion, in_tiles, read_diffusion
from smtool.inference.generate import class_labels, generate
from smtool.inference.guide import guided_by
from smtool.inference.other_decoder import decoded_by, other_decoder
from smtool.inference.precision import with_precision
from smtool.inference.published import import_transformer
from smtool.inference.sampling import sampling_of
from smtool.inference.tile_advice import advising_tiles
from smtool.networks.compiling import blocks_of, compile_each
from smtool.recipe.problems import validation_problems
from smtool.report.console import Console
from smtool.report.grids import image_grid, png_bytes
from smtool.training.distributed import joined, wait_for_all


def sample_images(
    checkpoint: str,
    *,
    console: Console,
    out: Path | None = None,
    num_images: int = 64,
    labels: str = "balanced",
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    batch: int = 64,
    grid: int = 64,
    kind: Format = "png",
    rounding: Rounding = "nearest",
    device: str = "cpu",
    autoencoder: str | None = None,
    guide: str | None = None,
    scale: float | Path | None = None,
    heads: int | None = None,
    snr_scale: float | None = None,
    tile: int | None = None,
    trace: bool = False,
    beside: Sequence[Path] = (),
    compiled: bool = False,
) -> Path:
    """Draw samples, write them and return the folder. Parts that an earlier call wrote are kept.

    changes: keys of the checkpoint's sampler to set (kind, steps, cfg_scale ...). grid: number of images in
    grid.png. rounding: of pixels to uint8; ADM and REPA truncate. autoencoder: decodes the latents in place of the checkpoint's
    own (see decoded_by). guide: a weaker transformer for guidance in place of the null class (see guided_by). autoencoder,
    scale, heads, snr_scale: for a published transformer, whose file has no autoencoder (see import_transformer). tile: side in
    pixels of overlapping tiles that are decoded one at a time. Under torchrun the ranks share the work; an image does not depend
    on the rank that draws it. trace: also measure how the first samples emerge over the steps, which does not change them;
    beside: traces of other runs, drawn in one figure with it. compiled: compile the transformer with torch.compile.
    """
    others = read_traces(beside)
    path = find_diffusion(checkpoint)
    with joined(device) as ranks:
        whole = _model(path, autoencoder, scale, heads, snr_scale, ranks.device)
        decoder = other_decoder(whole)
        if guide is not None:
            whole = _guided(whole, guide, autoencoder, scale, snr_scale, ranks.device)
        model = in_tiles(whole, tile)
        sampler = changed_sampler(model, changes or {}, ranks.device)
        if compiled:
            compile_each(blocks_of(model.network))
        classes = class_labels(num_images, model.num_classes, labels, seed=seed)
        if kind in LOSSY:
            refuse_alpha(model, kind)
        size = ImageSize(*(cells * model.autoencoder.downsample for cells in model.latent_shape[1:]))
        check_beside((size.height, size.width), others)
        name = f"samples-{sampler.kind}-{sampler.steps}-cfg{sampler.cfg_scale:g}-seed{seed}-{num_images}-{labels}-"
        name += kind.replace(":", "")
        name += "" if sampler.epsilon_scale == 1 else f"-eps{sampler.epsilon_scale:g}"
        name += "" if sampler.precision == "fp32" else f"-{sampler.precision}"
        name += "" if rounding == "nearest" else f"-{rounding}"
        name += "" if tile is None else f"-tile{tile}"
        name += "" if decoder is None else f"-decoder-{decoder.digest[:8]}"
        name += "" if model.guide is None else f"-guide-{model.guide.metadata['digest'][:8]}"
        folder = out or path.parent / name
        of_files = {"smtool": __version__, "num_images": num_images, "format": kind}
        of_files |= {} if tile is None else {"tile": tile}
        of_files |= {} if decoder is None else {"decoder": decoder}
        passport = sampling_of(model, sampler, labels=labels, seed=seed, rounding=rounding, **of_files)
        if ranks.first and (differing := check_passport(folder, passport)):
            raise RecipeError(
                f"{folder} holds samples with other settings ({', '.join(differing)} differ).", hint="Choose another --out."
            )
        if ranks.first:
            storage.remove_leftovers(folder)
        wait_for_all()
        files = SampleFolder(folder, kind, num_images, classes)
        todo = [part for part in files.parts() if not files.has(part)]
        with console.progress(f"sampling {path}") as report:
            done = num_images - sum(map(len, todo))
            report(done, num_images)
            for part in todo[ranks.rank :: ranks.world]:
                part_classes = None if classes is None else classes[part.start : part.stop]
                drawn = []
                with advising_tiles(model.autoencoder, size, batch="--batch"):
                    for _, images in generate(
                        model,
                        part,
                        seed=seed,
                        sampler=sampler,
                        labels=part_classes,
                        batch=batch,
                        device=ranks.device,
                        rounding=rounding,
                    ):
                        drawn.append(images)
                        done += len(images) * ranks.world
                        report(min(done, num_images), num_images)
                images = torch.cat(drawn)
                files.write(part, images)
        wait_for_all()
        if ranks.first:
            console.print(str(files.finish()))
            if shown := min(grid, num_images):
                storage.write_bytes(folder / "grid.png", png_bytes(image_grid(files.first(shown))))
    if trace and ranks.first:
        label = path.parent.name if path.name == "ckpt.safetensors" else path.stem
        with console.progress(f"tracing {path}") as report, advising_tiles(model.autoencoder, size, batch="--batch"):
            traced = trace_sampling(
                model,
                sampler,
                label=label,
                sampling=passport,
                images=min(num_images, NUM_TRACED),
                labels=classes,
                seed=seed,
                batch=batch,
                device=ranks.device,
                report=report,
            )
        console.print(table(traced.trace))
        for file in write_trace(folder, traced, others):
            console.print(str(file))
    return folder


def _model(
    path: Path,
    autoencoder: str | None,
    scale: float | Path | None,
    heads: int | None,
    snr_scale: float | None,
    device: str,
) -> DiffusionModel:
    """Load a checkpoint of smtool, with another decoder if one is given, or a published transformer with its autoencoder."""
    if is_diffusion(path):
        for option, value in (("--scale", scale), ("--heads", heads), ("--snr-scale", snr_scale)):
            if value is not None:
                raise RecipeError(
                    f"{option} {value} is for published transformers, but {path} was written by `smtool train-dit`.",
                    hint=f"Remove {option}.",
                )
        model = read_diffusion(path, device)
        return model if autoencoder is None else decoded_by(model, autoencoder, device)
    if autoencoder is None:
        if path.suffix in PICKLED:
            raise CheckpointError(
                f"{path} is not a checkpoint of `smtool train-dit`.",
                hint="For a published transformer, also pass the autoencoder of its latents: --autoencoder PATH",
            )
        return read_diffusion(path, device)
    return import_transformer(path, autoencoder, scale=scale, heads=heads, snr_scale=snr_scale, device=device)


def _guided(
    model: DiffusionModel,
    guide: str,
    autoencoder: str | None,
    scale: float | Path | None,
    snr_scale: float | None,
    device: str,
) -> DiffusionModel:
    """The model with a guide. A published transformer may be guided by another published one, with the same options."""

    def read(path: Path, device: str) -> DiffusionModel:
        if is_diffusion(path) or autoencoder is None:
            return read_diffusion(path, device)
        return import_transformer(path, autoencoder, scale=scale, snr_scale=snr_scale, device=device)

    return guided_by(model, guide, device=device, read=read)


def refuse_alpha(model: DiffusionModel, kind: str) -> None:
    """Raise RecipeError if the model's images have an alpha channel, which JPEG cannot store."""
    if model.autoencoder.image_channels in ALPHA:
        raise RecipeError(f"--format {kind}: JPEG has no alpha channel, but these images have one.", hint="Use --format png.")


def changed_sampler(model: DiffusionModel, changes: Mapping[str, Any], device: str = "cpu") -> Sampler:
    """The checkpoint's sampler with some keys changed, and with a stated precision on this device.

    Raises RecipeError if the result is invalid for this model.
    """
    tables = model.tables
    values = {**tables.sampler.model_dump(), **changes}
    if (method := SAMPLERS.get(values["kind"])) is not None and not method.stops:
        values["stop_time"] = 0.0      # of the checkpoint's sampler, which could stop
    try:
        sampler = Sampler.model_validate(values)
    except ValidationError as error:
        raise RecipeError("\n  ".join(["Invalid sampler options:", *validation_problems(error, Sampler)])) from error
    found = sampler.problems(
        tables.process,
        model.num_classes,
        null_class=tables.model.has_null_class,
        latent_shape=model.latent_shape,
        guide=model.guide is not None,
    )
    if problems := [f"{key}: {sentence}" for key, sentence in found]:
        raise RecipeError("\n  ".join(["Invalid sampler options:", *problems]))
    if sampler.cfg_scale == 1:
        idle = [f"--{key.replace('_', '-')}" for key in ("cfg_interval", "cfg_channels") if key in changes]
        if idle := [*idle, *(["--guide"] if model.guide else [])]:
            have = "has" if len(idle) == 1 else "have"
            raise RecipeError(
                f"{' and '.join(idle)} {have} no effect without guidance: the scale is 1.",
                hint="Add --cfg-scale, with a number above 1.",
            )
    return with_precision(sampler, model, device)
