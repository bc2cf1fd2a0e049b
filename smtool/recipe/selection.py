"""The keys `train` and `lr_multipliers` of a `train-ae` recipe: which parameters train, and how fast."""

from collections.abc import Iterator, Mapping

from smtool.networks.shapes_only import shapes_only
from smtool.networks.trainable import PARTS, AutoencoderConfig, TrainableAutoencoder

ALL = "all"


def members(autoencoder: TrainableAutoencoder, part: str) -> list[str]:
    """Names of the parameters of "all", of a part, or of those that match a pattern."""
    return [name for name, _ in autoencoder.named_parameters()] if part == ALL else autoencoder.part(part)


def trained_names(autoencoder: TrainableAutoencoder, train: str | tuple[str, ...]) -> set[str]:
    """Names of the parameters that `train` selects."""
    parts = (train,) if isinstance(train, str) else train
    return {name for part in parts for name in members(autoencoder, part)}


def multipliers(autoencoder: TrainableAutoencoder, factors: Mapping[str, float]) -> dict[str, float]:
    """Parameter name -> factor of its learning rate, for `lr_multipliers`."""
    return {name: factor for part, factor in factors.items() for name in members(autoencoder, part)}


def selection_problems(
    model: AutoencoderConfig, train: str | tuple[str, ...], factors: Mapping[str, float]
) -> Iterator[tuple[str, str]]:
    """(key, sentence) for parts without parameters, and for multipliers of frozen parts."""
    with shapes_only():
        network = model.build()
    parts = (train,) if isinstance(train, str) else train
    if not parts:
        yield "train", f"names nothing; use one of {', '.join((ALL, *PARTS))}, or a list of them and of patterns"
    for key, part in [*(("train", part) for part in parts), *(("lr_multipliers", part) for part in factors)]:
        if not members(network, part):
            last = [name for name, _ in network.named_parameters() if name.endswith(".weight")][-1]
            yield key, f"{part!r} matches no parameter; use {', '.join((ALL, *PARTS))}, or a pattern of names such as {last!r}"
    chosen = trained_names(network, train)
    for part in factors:
        if chosen and (of_part := members(network, part)) and not chosen & set(of_part):
            yield "lr_multipliers", f"{part!r} has no effect: train = {train!r} freezes all its parameters"
