"""`model.init`: the architecture and the defaults that follow from it, and what each wrong input says."""

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from smtool.checkpoints import write_autoencoder
from smtool.checkpoints.foreign.export_dc_ae import write_dc_ae
from smtool.errors import CheckpointError, RecipeError, WeightsError
from smtool.networks.dc_ae import DCAE
from smtool.networks.sit import SiT
from smtool.networks.taesd import TAESD
from smtool.recipe import TrainAE, load
from smtool.recipe.initial import ALONE, RAMP
from smtool.tokenizers import open_tokenizer

MINIMAL = """
steps = 10
[data]
image_size = 64
batch = 8
[model]
init = "specimen:plain"
[optimizer]
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "mine.toml").write_text(MINIMAL)
    return str(tmp_path / "mine.toml")


def test_the_keys_of_the_model_come_from_the_file(recipe):
    tables = load(recipe, TrainAE).tables
    assert tables.model.model_dump(exclude={"init"}) == open_tokenizer("specimen:plain").config.model_dump(exclude={"init"})
    assert (tables.model.init, tables.shapes.latents) == ("specimen:plain", (8, 4, 16, 16))
    assert load(recipe, TrainAE, ["model.latent_channels=4"]).tables == tables      # a key that agrees is allowed


def test_contradicting_keys_are_named_with_both_values(recipe):
    with pytest.raises(RecipeError) as caught:
        load(recipe, TrainAE, ["model.latent_channels=8", "model.channels=[16, 32]", "model.kind=taesd"])
    said = str(caught.value)
    assert "3 problems" in said
    assert "model.latent_channels: is 8, but model.init = 'specimen:plain' has 4; leave the key out" in said
    assert "model.channels: is [16, 32], but model.init = 'specimen:plain' has [16, 32, 64]" in said
    assert "model.kind: is 'taesd', but model.init = 'specimen:plain' has 'sd-vae'" in said


def test_taesd_is_trained_too_but_not_with_kl(recipe, tmp_path):
    write_autoencoder(tmp_path / "tiny.safetensors", TAESD(width=8).build(), {})
    changes = [f"model.init={tmp_path / 'tiny.safetensors'}"]
    assert load(recipe, TrainAE, changes).tables.model.kind == "taesd"
    with pytest.raises(RecipeError, match=r"regularizers\.kl: cannot be used: TAESD is deterministic"):
        load(recipe, TrainAE, [*changes, "regularizers.kl={}"])


def test_a_folder_of_dc_ae_gives_the_keys_and_has_no_kl(recipe, tmp_path):
    made = DCAE(downsample=4, latent_channels=4, channels=(8, 16, 32), encoder_blocks=(0, 1, 1), decoder_blocks=(0, 1, 1)).build()
    write_dc_ae(tmp_path / "dc", made)
    changes = [f"model.init={tmp_path / 'dc'}"]
    assert load(recipe, TrainAE, changes).tables.model.model_dump(exclude={"init"}) == made.config.model_dump(exclude={"init"})
    with pytest.raises(RecipeError, match=r"regularizers\.kl: cannot be used: DC-AE is deterministic"):
        load(recipe, TrainAE, [*changes, "regularizers.kl={}"])


def test_a_random_discriminator_beside_trained_weights_learns_alone_first(recipe):
    start = ["discriminator.start=0", "steps=5000"]
    table = load(recipe, TrainAE, start).tables.discriminator
    assert (table.alone, table.ramp) == (ALONE, RAMP)
    assert load(recipe, TrainAE, [*start, "discriminator.alone=3"]).tables.discriminator.alone == 3
    assert load(recipe, TrainAE, [*start, "discriminator.init=runs/x"]).tables.discriminator.alone == 0
    assert load("dsm", TrainAE, ["discriminator.num_layers=2"]).tables.discriminator.alone == 0      # as before `init` existed


def test_a_discriminator_that_never_teaches_gives_a_remark(recipe):
    remarks = list(load(recipe, TrainAE, ["discriminator.start=0"]).tables.remarks())
    assert any("discriminator.start + alone = 1000 is not below steps = 10" in remark for remark in remarks)


def test_stay_takes_its_original_from_init_and_needs_one(recipe):
    assert load(recipe, TrainAE, ["regularizers.stay={}"]).tables.regularizers.stay.original == "specimen:plain"
    own = ["regularizers.stay={original='specimen:dsm'}"]
    assert load(recipe, TrainAE, own).tables.regularizers.stay.original == "specimen:dsm"
    with pytest.raises(RecipeError, match=r"regularizers\.stay\.original: is required, because model\.init is not given"):
        load("dsm", TrainAE, ["regularizers.stay={}"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["train=decodr"], "train: 'decodr' matches no parameter; use all, encoder, decoder, last-layers, or a pattern"),
        (["train=[]"], "train: names nothing; use one of all, encoder, decoder"),
        (["train=decoder", "lr_multipliers.encoder=0.1"], "'encoder' has no effect: train = 'decoder' freezes all"),
        (["lr_multipliers={'encoder.x*'=2}"], "lr_multipliers: 'encoder.x*' matches no parameter"),
        (["lr_multipliers.encoder=0"], "lr_multipliers: must be greater than 0.0, but is 0."),
        (["train=decoder", "regularizers.esm={}"], "regularizers.esm: has no effect with train = 'decoder'"),
        (["train=last-layers", "regularizers.stay={}"], "regularizers.stay: has no effect with train = 'last-layers'"),
    ],
)
def test_parts_and_terms_without_effect_are_problems(recipe, changes, words):
    with pytest.raises(RecipeError) as caught:
        load(recipe, TrainAE, changes)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("train", "trains"),
    [("all", True), ("encoder", True), ("decoder", False), ("last-layers", False), ('["decoder", "encoder.conv_in.*"]', True)],
)
def test_whether_latents_change_follows_from_what_trains(recipe, train, trains):
    assert load(recipe, TrainAE, [f"train={train}"]).tables.trains_encoder is trains


def test_a_missing_file_a_transformer_and_what_cannot_train_are_refused(recipe, finished, tmp_path):
    def said(name) -> str:
        with pytest.raises(CheckpointError) as caught:
            load(recipe, TrainAE, [f"model.init={name}"])
        return str(caught.value)

    assert said(tmp_path / "nowhere").startswith(f"model.init: {tmp_path}/nowhere: no such file, folder or run.")
    assert "is a diffusion transformer, but an autoencoder is needed" in said(finished)
    network = SiT(size="custom", depth=2, width=32, heads=2, patch=2).build((4, 8, 8), 3)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, tmp_path / "sit.safetensors")
    assert "sit.safetensors is a diffusion transformer" in said(tmp_path / "sit.safetensors")
    assert "which `train-ae` cannot train" in said("pixels")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert "holds no known autoencoder" in said(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        ("pointer", CheckpointError, r"model\.init: .*safetensors is a Git LFS pointer, not the file of 334\.6 MB"),
        ("shard", CheckpointError, r"model\.init: .*index\.json names \d+ shards, of which 1 cannot be found .*-00002-of-"),
        ("offline", WeightsError, r"model\.init: org/vae is not on this machine .* cannot be reached"),
    ],
)
def test_files_that_are_incomplete_or_elsewhere_are_errors_that_name_the_key(damage, error, words, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    made = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=2)
    made.save_pretrained(tmp_path / "vae", max_shard_size="10KB" if damage == "shard" else "1GB")
    if damage == "pointer":
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 334643276\n"
        (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_text(pointer)
    if damage == "shard":
        sorted((tmp_path / "vae").glob("*-of-*"))[1].unlink()
    with pytest.raises(error, match=words):
        load(recipe, TrainAE, [f"model.init={'org/vae' if damage == 'offline' else tmp_path / 'vae'}"])
