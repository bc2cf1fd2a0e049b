"""`smtool inspect` of recipes and checkpoints of train-dit and of caches: name of a row -> text."""

from collections.abc import Sequence
from pathlib import Path

from smtool.commands.inspect.network_size import size_rows
from smtool.commands.prepare.latents import dct_lines
from smtool.data.cache.card import CacheCard
from smtool.data.features.card import read_feature_card
from smtool.data.features.shards import FeatureShards
from smtool.data.latents.shards import LatentShards, open_latents
from smtool.diffusion import Flow
from smtool.image_shape import ImageSize
from smtool.inference.diffusion_model import DiffusionModel, read_diffusion
from smtool.networks.tokenizer import Tokenizer
from smtool.recipe import Recipe, TrainDiT
from smtool.tokenizers.dct import is_dct


def recipe_rows(recipe: Recipe[TrainDiT]) -> dict[str, str]:
    """Rows of a recipe of train-dit."""
    tables = recipe.tables
    rows = {
        "kind": "recipe of `smtool train-dit`",
        **_network_rows(tables),
        **size_rows(tables),
        "latents": f"of {tables.latents.autoencoder}, normalized by {tables.latents.stats}"
        + _encoding(tables),
        "process": _process(tables),
        "sampler": _sampler(tables),
        "labels": "none" if tables.labels is None else f"dropped with probability {tables.labels.dropout:g}",
        "loss weights": _loss_weights(tables),
        "alignment": _alignment(tables),
        **_end_to_end(tables),
        "steps": f"{tables.steps:,}, {tables.steps * tables.data.batch:,} samples",
        "run": f"runs/{recipe.name}",
    }
    return rows | ({"remarks": remarks} if (remarks := "\n".join(tables.remarks())) else {})


def _encoding(tables: TrainDiT) -> str:
    encoded = "encoded in bf16" if tables.latents.precision == "bf16" else "encoded"
    if tables.latents.online or tables.end_to_end is not None:
        return f", {encoded} while training"
    cached = f"{'encoded in bf16, ' if tables.latents.precision == 'bf16' else ''}cached as {tables.latents.dtype}"
    return f", encoded while training unless they are {cached}" if is_dct(tables.latents.autoencoder) else f", {cached}"


def checkpoint_rows(path: Path) -> dict[str, str]:
    """Rows of a checkpoint, which is loaded completely, so that a damaged one is an error."""
    model: DiffusionModel = read_diffusion(path)
    facts, tokenizer = model.metadata, model.autoencoder
    channels, height, width = model.latent_shape
    return {
        "kind": f"diffusion transformer, written by smtool {facts['smtool']}",
        **_network_rows(model.tables),
        "parameters": f"{sum(p.numel() for p in model.network.parameters()):,}",
        "latent": f"{channels} x {height} x {width}, {model.network.token_grid[0]} x {model.network.token_grid[1]} tokens",
        "classes": f"{model.num_classes}" if model.num_classes else "none",
        "process": _process(model.tables, model.latent_shape),
        "sampler": _sampler(model.tables),
        "loss weights": _loss_weights(model.tables, facts.get("loss_weights")),
        "alignment": _alignment(model.tables),
        **_end_to_end(model.tables),
        "step": "not known" if facts["step"] is None else f"{facts['step']:,}, {facts['weights']} weights",
        "autoencoder": f"{_short(tokenizer)}, "
        + ("in this file" if facts["autoencoder"]["embedded"] else f"in {facts['autoencoder_path']}")
        + f", digest {facts['autoencoder']['digest']}",
        "trained on": f"{facts['data']} at {ImageSize.of(facts['image_size']).words}, "
        f"digest {facts.get('data_digest', 'not known')}"
        if "data" in facts
        else f"not known; imported from {facts['source']}",
        "statistics": f"{model.stats.name}, {f'of {model.stats.count:,} latents' if model.stats.count else model.stats.data}",
        "digest": facts["digest"],
    }


def _short(tokenizer: Tokenizer) -> str:
    """Short name of a tokenizer: kind, downsampling factor, channels."""
    config = tokenizer.config
    kind = str(getattr(config, "kind", tokenizer.architecture.split(" f")[0]))
    return f"{kind} f{tokenizer.downsample}d{tokenizer.latent_channels}"


def feature_rows(folder: Path) -> dict[str, str]:
    """Rows of a cache of a teacher's features. Raises DataError if a shard is missing."""
    features = FeatureShards(folder, read_feature_card(folder))
    card = features.card
    return {
        "kind": "cache of a teacher's features",
        "features": f"{len(features):,} of {card.dim} x {card.grid[0]} x {card.grid[1]}, {card.dtype}"
        + (", with mirrored images" if card.flip else ""),
        "teacher": f"{card.teacher}, digest {card.weights}",
        "input": f"{card.input_size[0]} x {card.input_size[1]} pixels, for {card.tokens[0]} x {card.tokens[1]} tokens",
        **_images_and_shards(card),
        "digest": card.digest,
    }


def cache_rows(folder: Path) -> dict[str, str]:
    """Rows of a latent cache. Raises DataError if a shard is missing."""
    latents: LatentShards = open_latents(folder, autoencoder=None, data=None)
    card = latents.card
    channels, height, width = latents.latent_shape
    std = ", ".join(f"{value:.4g}" for value in latents.stats.std[:8].tolist()) + (", ..." if channels > 8 else "")
    return {
        "kind": "latent cache",
        "latents": f"{len(latents):,} of {channels} x {height} x {width}, {card.dtype} moments"
        + (", with mirrored images" if card.flip else "") + (", encoded in bf16" if card.precision == "bf16" else ""),
        "autoencoder": f"{card.checkpoint}, digest {card.autoencoder}",
        "classes": f"{card.num_classes}" if card.num_classes else "none",
        "statistics": f"of {latents.stats.count:,} latents: std {std}",
        **({"measured": "\n".join(lines)} if (lines := dct_lines(card)) else {}),
        **_images_and_shards(card),
        "digest": latents.digest,
    }


def _images_and_shards(card: CacheCard) -> dict[str, str]:
    return {
        "images": f"{card.split} split of {card.images_folder} at {card.image_size.words}, digest {card.data}",
        "shards": f"{len(card.shards)}, {sum(shard.bytes for shard in card.shards) / 1e6:,.1f} MB, all present",
    }


def _network_rows(tables: TrainDiT) -> dict[str, str]:
    model = tables.model
    shape = f"{model.depth} blocks, width {model.width}, {model.heads} heads, patch {model.patch}"
    return {"architecture": f"{model.kind} {model.size}: {shape}"}


def _process(tables: TrainDiT, latent_shape: tuple[int, int, int] | None = None) -> str:
    process = tables.process
    noisier = f", inputs perturbed by {process.input_perturbation:g}" if process.input_perturbation else ""
    if process.kind == "flow":
        return f"flow, {process.path} path, {process.prediction} prediction{_shift(process, latent_shape)}{noisier}"
    predicted = "data" if process.kind == "vp-sde" and process.prediction == "x0" else "noise"
    scale = f", SNR times {process.snr_scale:g}" if process.snr_scale != 1 else ""
    return f"{process.kind}, {predicted} prediction{scale}{noisier}"


def _shift(process: Flow, latent_shape: tuple[int, int, int] | None) -> str:
    if process.shift == 1:
        return ""
    if process.shift != "dimension":
        return f", times shifted by {process.shift:g}"
    known = "sqrt(C h w / 4096)" if latent_shape is None else f"{process.shift_of(latent_shape):.4g}"
    return f", times shifted by {known}, for the dimension of the latents"


def _sampler(tables: TrainDiT) -> str:
    sampler = tables.sampler
    low, high = sampler.cfg_interval
    guidance = f"guidance {sampler.cfg_scale:g} for t in [{low:g}, {high:g}]" if sampler.cfg_scale > 1 else "no guidance"
    if sampler.cfg_scale > 1 and sampler.cfg_channels:
        guidance += f" on the first {sampler.cfg_channels} channels"
    scaling = f", epsilon scale {sampler.epsilon_scale:g}" if sampler.epsilon_scale != 1 else ""
    end = f" to t = {sampler.stop_time:g} before the shift" if sampler.stop_time else ""
    return f"{sampler.kind}, {sampler.steps} steps{end}, {guidance}{scaling}"


def _loss_weights(tables: TrainDiT, used: Sequence[float] | None = None) -> str:
    """Weights of channels: those of the recipe, and those used in training."""
    asked = tables.loss.weights
    numbers = used if used is not None else None if isinstance(asked, str) else asked
    shown = "" if numbers is None else " ".join(f"{number:.3f}" for number in numbers)
    return " ".join(part for part in (asked + ("," if shown else "") if isinstance(asked, str) else "", shown) if part)


def _end_to_end(tables: TrainDiT) -> dict[str, str]:
    """A row about the training of the autoencoder, if it trains together with the transformer."""
    joint = tables.end_to_end
    if joint is None:
        return {}
    terms = [joint.reconstruction.loss, *joint.regularizers.present]
    terms += [f"LPIPS ({joint.perceptual.net}), weight {joint.perceptual.weight:g}"] if joint.perceptual else []
    terms += [f"PatchGAN, weight {joint.discriminator.weight:g}"] if joint.discriminator else []
    terms.append(f"alignment, weight {joint.alignment_weight:g}")
    return {"end to end": f"the autoencoder trains too: {'; '.join(terms)}"}


def _alignment(tables: TrainDiT) -> str:
    table = tables.alignment
    return "none" if table is None else f"{table.kind} with {table.teacher} after block {table.depth}, weight {table.weight:g}"
