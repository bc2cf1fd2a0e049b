"""`smtool sample RUN --autoencoder NEW`: the checkpoint's latents, decoded by another autoencoder."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from smtool.checkpoints import write_autoencoder
from smtool.data.batches import to_uint8
from smtool.diffusion import Sampler, sample
from smtool.inference.diffusion_model import read_diffusion
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import generator, initializing, noise_of
from smtool.tokenizers import load_autoencoder, open_tokenizer

OTHER = "runs/other/ckpt.safetensors"
LATER = SDVAE(downsample=4, latent_channels=2, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1)


def pixels_of(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("0*.png"))])


@pytest.fixture
def other(studio):
    """An autoencoder with the latent shape of runs/tiny, other weights, and a network in its loss."""
    with initializing("test", 1):
        network = LATER.build()
    write_autoencoder(studio.folder / OTHER, network, {"learned_from": ["random"]})
    return OTHER


def test_the_latents_are_the_checkpoints_and_the_decoder_is_the_other(finished, other, command, tmp_path):
    out = tmp_path / "out"
    code, _, err = command("sample", str(finished), "--autoencoder", other, "--num-images", "3", "--out", str(out))
    assert code == 0, err
    model = read_diffusion(finished / "ckpt.safetensors")
    streams = [generator("sample", 0, index) for index in range(3)]
    settings = Sampler(kind="euler", steps=4)
    guided = settings.model(model.process, model.network, labels=torch.arange(3), null=3)
    normalized = sample(model.process, guided, noise_of(streams, (2, 8, 8)), settings, step_noise=None)
    raw = normalized * model.stats.std.view(1, -1, 1, 1) + model.stats.mean.view(1, -1, 1, 1)
    expected = to_uint8(open_tokenizer(other).decode(raw)).permute(0, 2, 3, 1).numpy()
    found = pixels_of(out)
    assert np.abs(found.astype(int) - expected).max() <= 1
    own = to_uint8(model.autoencoder.decode(raw)).permute(0, 2, 3, 1).numpy()
    assert np.abs(found.astype(int) - own).mean() > 10
    passport = json.loads((out / "samples.json").read_text())
    digest = load_autoencoder(other).digest
    assert passport["decoder"] == {"path": OTHER, "digest": digest, "learned_from": ["random"]}


def test_the_default_folder_names_the_decoder_and_is_not_that_of_the_own_autoencoder(finished, other, command, tmp_path):
    shutil.copy(finished / "ckpt.safetensors", tmp_path)
    checkpoint = str(tmp_path / "ckpt.safetensors")
    for arguments in ([], ["--autoencoder", other], ["--autoencoder", "runs/tiny"]):      # the last is the checkpoint's own
        assert command("sample", checkpoint, "--num-images", "2", *arguments)[0] == 0
    digest = load_autoencoder(other).digest
    plain = "samples-euler-4-cfg1-seed0-2-balanced-png"
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {plain, f"{plain}-decoder-{digest[:8]}"}
    assert "decoder" not in json.loads((tmp_path / plain / "samples.json").read_text())


def test_a_folder_of_the_own_decoder_is_not_continued_by_another(finished, other, command, tmp_path):
    arguments = ["sample", str(finished), "--num-images", "2", "--out", str(tmp_path / "out")]
    assert command(*arguments)[0] == 0
    code, _, err = command(*arguments, "--autoencoder", other)
    assert (code, "other settings (decoder differ)" in err) == (2, True), err


def test_eval_says_who_decoded_and_warns_of_its_teacher(finished, other, command, tmp_path):
    out = tmp_path / "out"
    assert command("sample", str(finished), "--autoencoder", other, "--num-images", "12", "--out", str(out))[0] == 0
    scores, table = tmp_path / "scores.json", tmp_path / "scores.csv"
    arguments = ["--reference", "data/classes", "--json", str(scores), "--table", str(table)]
    code, text, err = command("eval", str(out), *arguments)
    assert code == 0, err
    digest = load_autoencoder(other).digest
    assert f"Decoded by {OTHER} ({digest[:8]}) in place of the checkpoint's own autoencoder." in text
    found = json.loads(scores.read_text())["scores"]["kid_random"]
    assert found["passport"]["sampling"]["decoder"]["digest"] == digest
    assert any("random was in the loss of the decoder" in note for note in found["notes"])
    with table.open() as file:
        row, *_ = csv.DictReader(file)
    assert row["decoder"] == digest


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"downsample": 2, "channels": (8, 8)}, "3x32 px into latents of 2x16x16, but the transformer samples latents of 2x8x8"),
        ({"latent_channels": 3}, "latents of 3x8x8, but the transformer samples latents of 2x8x8"),
        ({"image_channels": 1}, "images of 1x32 px into latents of 2x8x8"),
    ],
)
def test_latents_or_images_of_another_shape_are_refused(finished, studio, command, tmp_path, config, sentence):
    network = SDVAE.model_validate({**LATER.model_dump(), **config}).build()
    write_autoencoder(tmp_path / "unlike.safetensors", network, {})
    unlike = str(tmp_path / "unlike.safetensors")
    code, _, err = command("sample", str(finished), "--autoencoder", unlike, "--out", str(tmp_path / "out"))
    assert (code, sentence in " ".join(err.split()), "Traceback" in err) == (3, True, False), err
    assert not (tmp_path / "out").exists()


def test_an_encoder_alone_and_idle_options_are_refused(finished, studio, command, tmp_path):
    for arguments, exit_code, sentence in (
        (["--autoencoder", "runs/none"], 3, "runs/none: no such file, folder or run"),
        (["--scale", "0.5"], 2, "--scale 0.5 is for published transformers"),
        (["--heads", "4"], 2, "--heads 4 is for published transformers"),
    ):
        code, _, err = command("sample", str(finished), *arguments, "--out", str(tmp_path / "out"))
        assert (code, sentence in err, "Traceback" in err) == (exit_code, True, False), err
        assert not (tmp_path / "out").exists()
