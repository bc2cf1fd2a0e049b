"""`smtool inspect RECIPE --cost`: what training a recipe costs on GPUs, predicted without running it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from smtool.commands.inspect.cost_text import cost_rows
from smtool.commands.inspect.network_size import Shape, latents_of
from smtool.commands.train.cost_subject import autoencoder_subject, end_to_end_subject, transformer_subject
from smtool.commands.train.joint_source import joint_tables
from smtool.commands.train.without_values import META, latent_batch
from smtool.cost.counting import Count, counting
from smtool.cost.cuda_autocast import cuda_autocast
from smtool.cost.estimate import Encoding, Subject, estimate
from smtool.cost.gpus import GPU, find_gpu
from smtool.cost.result import Cost, DataCost
from smtool.cost.storage import Latents, data_cost
from smtool.data.images.card import is_prepared, read_card
from smtool.errors import CheckpointError, RecipeError, WeightsError
from smtool.features.encoder import supply_encoder
from smtool.features.weights import without_weights
from smtool.image_shape import ImageSize
from smtool.networks.sd_vae import SDVAE
from smtool.networks.trainable import AutoencoderConfig, TrainableAutoencoder
from smtool.recipe import TrainAE, TrainDiT, kind_of, load
from smtool.recipe.catalog import autoencoder_recipe
from smtool.report.console import Console
from smtool.tokenizers.dct import is_dct
from smtool.tokenizers.pixels import PIXELS
from smtool.tokenizers.trainable import open_trainable
from smtool.training.precision import Precision, autocast

ENCODE_BATCH = 32      # of `prepare --latents`
ASSUMED_CLASSES = 1000


def show_cost(what: str, *, gpu: str, gpus: int, as_json: bool, console: Console) -> None:
    """Print the cost of a recipe. Raises RecipeError for what is no training recipe, an unknown GPU, or an indivisible batch."""
    found = recipe_cost(what, gpu=gpu, gpus=gpus)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    console.rule(found.recipe)
    console.print(cost_rows(found))


def recipe_cost(what: str, *, gpu: str, gpus: int = 1) -> Cost:
    """The cost of a recipe of `train-ae` or `train-dit`. Data, weights and the autoencoder of latents need not exist."""
    machine = find_gpu(gpu)
    if kind_of(what) is TrainDiT:
        return transformer_cost(load(what, TrainDiT).tables, what, machine, gpus)
    return autoencoder_cost(load(what, TrainAE).tables, what, machine, gpus)


def autoencoder_cost(tables: TrainAE, name: str, gpu: GPU, gpus: int) -> Cost:
    subject = autoencoder_subject(tables, name)
    size, channels = tables.data.image_size, tables.model.image_channels

    def data(rate: float) -> DataCost:
        encode = _encode_seconds(tables.model, size, gpu)
        latents = Latents(tables.shapes.latents[1:], "bf16", True, encode)
        return data_cost(size, channels, images_per_second=rate, latents=latents)

    return estimate(subject, gpu, gpus, data)


def transformer_cost(tables: TrainDiT, name: str, gpu: GPU, gpus: int) -> Cost:
    shape, source = _shape(tables, name)
    size, channels = _images(tables, shape)
    classes = num_classes(tables, source)
    if tables.end_to_end is not None:
        model, remarks = _joint_model(tables, shape)
        subject = end_to_end_subject(tables, joint_tables(tables, model, tables.data.train, size), name, classes, remarks)
    else:
        subject = _with_encoding(
            transformer_subject(
                tables, name, shape, classes, lambda count: latent_batch(tables, shape, size, channels, count)
            ),
            tables, shape, size,
        )  # fmt: skip
    cached = not tables.latents.online and not is_dct(tables.latents.autoencoder) and tables.end_to_end is None

    def data(rate: float) -> DataCost:
        latents = Latents(shape, tables.latents.dtype, tables.data.flip, _encoder_seconds(tables, size, gpu)) if cached else None
        return data_cost(size, channels, images_per_second=rate, latents=latents)

    return estimate(subject, gpu, gpus, data)


def num_classes(tables: TrainDiT, source: str) -> int:
    """Classes of the prepared images; of images that are not there, those of ImageNet; 0 without [labels]."""
    if tables.labels is None:
        return 0
    path = Path(tables.data.train or source)
    known = read_card(path).num_classes if is_prepared(path) else 0
    return known or ASSUMED_CLASSES


def _shape(tables: TrainDiT, name: str) -> tuple[Shape, str]:
    try:
        shape, source = latents_of(tables)
    except (CheckpointError, WeightsError) as error:
        raise RecipeError(
            f"{name}: the shape of the latents is not known, because {tables.latents.autoencoder} is not here.", hint=error.hint
        ) from error
    if shape is None:
        raise RecipeError(
            f"{name}: the shape of the latents depends on data.image_size.", hint="State data.image_size in the recipe."
        )
    return shape, source


def _planned(tables: TrainDiT) -> TrainAE | None:
    """The packaged recipe that trains the autoencoder of the latents; None for other autoencoders."""
    found = autoencoder_recipe(tables.latents.autoencoder.removesuffix("/ckpt.safetensors"))
    return None if found is None else load(found[0], TrainAE).tables


def _images(tables: TrainDiT, shape: Shape) -> tuple[ImageSize, int]:
    """Size and channels of the images behind the latents."""
    asked, trained = tables.data.image_size, _planned(tables)
    if trained is not None:
        return (trained.data.image_size if asked == "autoencoder" else asked), trained.model.image_channels
    return (ImageSize(8 * shape[1], 8 * shape[2]) if asked == "autoencoder" else asked), 3


def _joint_model(tables: TrainDiT, shape: Shape) -> tuple[AutoencoderConfig, tuple[str, ...]]:
    """The autoencoder of [end_to_end] by its file, else by the packaged recipe that trains it, else an SD-VAE with such latents;
    and what is assumed of it."""
    place, size = tables.latents.autoencoder, tables.data.image_size
    try:
        return open_trainable(place).config, ()
    except (CheckpointError, WeightsError):
        if (trained := _planned(tables)) is not None:
            return trained.model, ()
        factor = (ImageSize(8 * shape[1], 8 * shape[2]) if size == "autoencoder" else size).height // shape[1]
        model = SDVAE(downsample=factor, latent_channels=shape[0])
        return model, (f"{place} is not here; its network is taken to be that of an SD-VAE with the same latents",)


def _with_encoding(subject: Subject, tables: TrainDiT, shape: Shape, size: ImageSize) -> Subject:
    """With the encoder's forward pass in every turn, if images are encoded while training, by a network."""
    place, precision = tables.latents.autoencoder, tables.latents.precision
    if not tables.latents.online or is_dct(place) or place == PIXELS:
        return subject
    model, assumed = _joint_model(tables, shape)
    network = _without_weights(model)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    encoding = Encoding(lambda count: _encoding_count(network, size, count, precision), parameters)
    said = f"images are encoded in every step, in {precision}, which is counted with the transformer's turn"
    return replace(subject, encoding=encoding, remarks=(*subject.remarks, said, *assumed))


def _encoder_seconds(tables: TrainDiT, size: ImageSize, gpu: GPU) -> float | None:
    trained = _planned(tables)
    return None if trained is None else _encode_seconds(trained.model, size, gpu, tables.latents.precision)


def _encode_seconds(model: AutoencoderConfig, size: ImageSize, gpu: GPU, precision: Precision = "fp32") -> float:
    """Seconds to encode one image, as `prepare --latents` does."""
    return gpu.seconds(_encoding_count(_without_weights(model), size, ENCODE_BATCH, precision)) / ENCODE_BATCH


def _without_weights(model: AutoencoderConfig) -> TrainableAutoencoder:
    with without_weights():
        network = model.build().to(META)
        supply_encoder(network)
    return network


def _encoding_count(network: TrainableAutoencoder, size: ImageSize, count: int, precision: Precision) -> Count:
    """Operations that encode a number of images; not those that normalize images and draw latents."""
    encode: Callable[[torch.Tensor], object] = network.encode
    images = torch.empty(count, network.image_channels, *size, device=META).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), cuda_autocast(), counting() as found, autocast(precision, "cpu"):      # meta tensors have its switch
        encode(images)
    return found
