"""Checkpoints of train-dit whose metadata were damaged or changed by hand."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from smtool.commands.inspect.inspection import describe
from smtool.errors import CheckpointError
from smtool.inference.diffusion_model import read_diffusion

WRITTEN = Path(__file__).parents[1] / "data/before-redesign/runs/sit/ckpt.safetensors"
GONE = "(removed)"


def changed(path: Path, keys: tuple, value: object) -> None:
    """Write the checkpoint with one value of its metadata replaced, or removed."""
    with safe_open(WRITTEN, "pt") as file:
        metadata = {name: json.loads(text) for name, text in file.metadata().items()}
    table = metadata
    for key in keys[:-1]:
        table = table[key]
    if value is GONE:
        del table[keys[-1]]
    else:
        table[keys[-1]] = value
    save_file(load_file(WRITTEN), path, {name: json.dumps(entry) for name, entry in metadata.items()})


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("latent_shape",), GONE),
        (("latent_shape",), "[2, 8, 8]"),
        (("latent_shape",), [2, 8]),
        (("latent_shape", 1), []),
        (("latent_shape", 0), 2**40),
        (("num_classes",), -1),
        (("step",), [4]),
        (("digest",), GONE),
        (("kind",), ["diffusion"]),
        (("recipe",), 5),
        (("stats",), "none"),
        (("stats", "count"), GONE),
        (("stats", "kind"), "element"),
        (("stats", "std"), {"std": 1}),
        (("stats", "std", 0), 0.0),
        (("stats", "mean"), [0.0, 0.0, 0.0]),
        (("stats", "residual"), [0.0, [None]]),
        (("stats", "residual"), {"x": 0.0}),
        (("autoencoder", "embedded"), GONE),
        (("autoencoder", "model"), GONE),
        (("autoencoder", "model", "channels"), [4, 4]),
        (("autoencoder",), 0),
    ],
    ids=str,
)
def test_damaged_metadata_are_one_sentence_that_names_the_file(tmp_path, keys, value):
    path = tmp_path / "ckpt.safetensors"
    changed(path, keys, value)
    with pytest.raises(CheckpointError, match=r"ckpt\.safetensors") as found:
        read_diffusion(path)
    assert len(str(found.value)) < 1500


def test_an_unknown_digest_of_the_images_is_described_as_such(tmp_path):
    changed(tmp_path / "ckpt.safetensors", ("data_digest",), GONE)
    assert "digest not known" in describe(str(tmp_path / "ckpt.safetensors")).rows["trained on"]
