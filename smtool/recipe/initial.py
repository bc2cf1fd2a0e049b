"""`model.init` of a `train-ae` recipe: the keys that follow from the autoencoder that training starts from."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from smtool.errors import CheckpointError, RecipeError, WeightsError
from smtool.features.encoder import describe_encoder
from smtool.networks import AnyAutoencoder
from smtool.networks.rae import RAE
from smtool.networks.trainable import TrainableAutoencoder
from smtool.recipe.catalog import autoencoder_recipe, packaged, read_text
from smtool.tokenizers.trainable import open_trainable

ALONE, RAMP = 1000, 1000
"""Steps that a discriminator with random weights trains alone beside trained weights, and steps of its ramp after that."""

_TABLE: TypeAdapter[Any] = TypeAdapter(AnyAutoencoder)


def completed_by_init(values: dict[str, Any], weights_dir: Path | None = None) -> tuple[dict[str, Any], list[str]]:
    """The values of a recipe with the architecture of `model.init` and the defaults that go with it.

    Returns (values, contradictions between [model] and that architecture). The architecture of the run of a packaged recipe that
    was not trained yet is that of the recipe. weights_dir: searched first for the frozen encoder of an RAE.
    Raises CheckpointError if it cannot be opened, WeightsError without that encoder.
    """
    model = values.get("model")
    name = model.get("init") if isinstance(model, Mapping) else None
    if not name or not isinstance(name, str):
        return values, []
    assert isinstance(model, Mapping)
    planned = _planned(name)
    stated = start_of(name, weights_dir).config.model_dump(mode="json") if planned is None else _model_of(planned)
    problems = [
        f"model.{key}: is {model[key]!r}, but model.init = {name!r} has {stated[key]!r}; leave the key out"
        for key in model
        if key in stated and key != "init" and model[key] != stated[key]
    ]
    completed = {**values, "model": {**stated, **model}}
    _complete_discriminator(completed)
    _complete_stay(completed, name)
    return completed, problems


def completed_by_encoder(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of a recipe with the number of latent channels that follows from the frozen encoder of an RAE.

    Returns (values, problems): an encoder that does not exist, or another stated number.
    """
    model = values.get("model")
    if not isinstance(model, Mapping) or model.get("kind") != "rae" or model.get("init"):
        return values, []
    name = model.get("encoder", RAE.model_fields["encoder"].default)
    if not isinstance(name, str):
        return values, []      # an error of validation
    try:
        dim = describe_encoder(name).dim
    except RecipeError as error:
        where = "" if error.message.startswith("model.") else "model.encoder: "
        return values, [f"{where}{error.message} {error.hint or ''}".strip()]
    stated = model.get("latent_channels", dim)
    problems = [] if stated == dim else [f"model.latent_channels: is {stated!r}, but {name} has {dim}; leave the key out"]
    return {**values, "model": {**model, "latent_channels": dim}}, problems


def start_of(name: str, weights_dir: Path | None = None) -> TrainableAutoencoder:
    """The autoencoder of `model.init`; errors name the key."""
    if (planned := _planned(name)) is not None:
        raise CheckpointError(
            f"model.init: there is no autoencoder at {name} yet.", hint=f"Train it first: smtool train-ae recipes/{planned}.toml"
        )
    try:
        return open_trainable(name, weights_dir=weights_dir)
    except (CheckpointError, WeightsError) as error:
        raise type(error)(f"model.init: {error.message}", hint=error.hint) from error


def _planned(name: str) -> str | None:
    """The packaged recipe whose run folder this is, as long as there is no such run; None for other names."""
    missing = not Path(name).exists()
    found = autoencoder_recipe(name) if missing and name.startswith("runs/") else None
    return None if found is None else found[0]


def _model_of(recipe: str) -> dict[str, Any]:
    """The [model] table of a packaged recipe, complete."""
    values, _ = completed_by_init(tomllib.loads(read_text(packaged() / f"{recipe}.toml")))
    model = _TABLE.validate_python(values["model"])
    return {**model.model_dump(mode="json"), "init": ""}


def _complete_discriminator(values: dict[str, Any]) -> None:
    """A random discriminator beside trained weights first learns alone, because it would ruin the decoder."""
    table = values.get("discriminator")
    if isinstance(table, Mapping) and not table.get("init"):
        values["discriminator"] = {"alone": ALONE, "ramp": RAMP, **table}


def _complete_stay(values: dict[str, Any], name: str) -> None:
    methods = values.get("regularizers")
    if isinstance(methods, Mapping) and isinstance(stay := methods.get("stay"), Mapping):
        values["regularizers"] = {**methods, "stay": {"original": name, **stay}}
