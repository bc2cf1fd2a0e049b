"""Autoencoder checkpoints of smtool: writing and reading, and errors for other files."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from smtool import __version__
from smtool.checkpoints import read_autoencoder, write_autoencoder
from smtool.commands.inspect.inspection import describe
from smtool.errors import CheckpointError
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE, Autoencoder
from smtool.storage import file_digest, read_metadata, read_tensors, write_tensors

SECTION = SDVAE(downsample=4, latent_channels=3, channels=(8, 8, 16), norm_groups=4, blocks_per_level=1)


@pytest.fixture
def autoencoder() -> Autoencoder:
    autoencoder = SECTION.build()
    autoencoder.stats = LatentStats("channel", torch.arange(3.0), torch.arange(1.0, 4.0), count=7, data="digest of data")
    return autoencoder


def test_a_written_autoencoder_is_read_back_exactly(autoencoder, tmp_path):
    write_autoencoder(tmp_path / "ckpt.safetensors", autoencoder, {"step": 40})
    again = read_autoencoder(tmp_path / "ckpt.safetensors")
    assert again.config == SECTION
    assert again.stats is not None and torch.equal(again.stats.std, autoencoder.stats.std)
    images = torch.randn(1, 3, 16, 24)
    assert torch.equal(again.decode(again.encode(images).mode()), autoencoder.decode(autoencoder.encode(images).mode()))
    assert again.digest == autoencoder.digest


def test_metadata_describe_the_file_to_other_tools(autoencoder, tmp_path):
    write_autoencoder(tmp_path / "ckpt.safetensors", autoencoder, {"recipe": {"seed": 0}, "step": 40, "data": "abc"})
    with safe_open(tmp_path / "ckpt.safetensors", framework="pt") as file:
        metadata = {name: json.loads(value) for name, value in file.metadata().items()}
    assert metadata["smtool"] == __version__
    assert metadata["kind"] == "autoencoder"
    assert SDVAE.model_validate(metadata["model"]) == SECTION
    assert metadata["stats"]["count"] == 7
    assert metadata["digest"] == autoencoder.digest
    assert (metadata["recipe"], metadata["step"], metadata["data"]) == ({"seed": 0}, 40, "abc")


def test_training_an_opened_autoencoder_changes_neither_the_file_nor_a_second_one(autoencoder, tmp_path):
    path = tmp_path / "ckpt.safetensors"
    write_autoencoder(path, autoencoder, {})
    before = file_digest(path)
    trained, untouched = read_autoencoder(path), read_autoencoder(path)
    assert all(parameter.requires_grad for parameter in trained.parameters())
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    assert file_digest(path) == before
    assert untouched.digest == autoencoder.digest != trained.digest


def test_the_digest_depends_on_all_settings_that_change_latents(autoencoder):
    """With the same weights, another padding or number of groups is another function."""
    digests = {autoencoder.digest}
    for change in ({"downsample_pad": "symmetric"}, {"norm_groups": 8}):
        other = SDVAE.model_validate({**SECTION.model_dump(), **change}).build()
        other.load_state_dict(autoencoder.state_dict())
        digests.add(other.digest)
    with torch.no_grad():
        autoencoder.decoder_last_layer[0, 0, 0, 0] += 1.0
    digests.add(autoencoder.digest)
    assert len(digests) == 4


def test_a_missing_a_surplus_and_a_reshaped_weight_are_all_named(autoencoder, tmp_path):
    path = tmp_path / "ckpt.safetensors"
    write_autoencoder(path, autoencoder, {})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    del tensors["encoder.conv_in.bias"]
    tensors["surplus"] = torch.zeros(1)
    tensors["decoder.conv_out.bias"] = torch.zeros(4)
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError) as caught:
        read_autoencoder(path)
    message = str(caught.value)
    assert str(path) in message
    assert "1 missing, first encoder.conv_in.bias" in message
    assert "1 unexpected, first surplus" in message
    assert "first decoder.conv_out.bias: (4,) instead of (3,)" in message


def test_another_kind_of_checkpoint_is_refused_by_name(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "dit.safetensors", {"kind": json.dumps("diffusion")})
    with pytest.raises(CheckpointError, match=r"dit.safetensors holds kind 'diffusion', but an autoencoder is needed"):
        read_autoencoder(tmp_path / "dit.safetensors")


def test_a_safetensors_file_without_smtools_description_is_refused(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="without smtool's description"):
        read_autoencoder(tmp_path / "other.safetensors")


def test_an_architecture_of_a_later_version_is_refused_with_that_version(tmp_path):
    metadata = {"kind": "autoencoder", "smtool": "9.9", "model": {"kind": "vq"}}
    save_file(
        {"weight": torch.zeros(1)}, tmp_path / "new.safetensors", {name: json.dumps(value) for name, value in metadata.items()}
    )
    with pytest.raises(CheckpointError, match=r"written by smtool 9\.9"):
        read_autoencoder(tmp_path / "new.safetensors")


def test_a_text_file_and_a_truncated_file_are_refused(autoencoder, tmp_path):
    text, cut = tmp_path / "text.safetensors", tmp_path / "cut.safetensors"
    text.write_text("not weights\n" * 100)
    write_autoencoder(cut, autoencoder, {})
    cut.write_bytes(cut.read_bytes()[:-100])
    for path in (text, cut):
        with pytest.raises(CheckpointError, match=f"{path.name} is not a readable safetensors file"):
            read_autoencoder(path)


@pytest.mark.parametrize(
    "change", [{"stats": {"kind": "channel"}}, {"stats": 3}, {"recipe": {"regularizers": 1}}], ids=str
)
def test_an_autoencoder_with_damaged_metadata_is_refused(tmp_path, change):
    path = tmp_path / "ckpt.safetensors"
    write_autoencoder(path, SDVAE(downsample=4, latent_channels=2, channels=(4, 4, 4), norm_groups=2).build(), {})
    tensors, metadata = read_tensors(path), read_metadata(path)
    write_tensors(path, tensors, {**metadata, **change})
    with pytest.raises(CheckpointError, match=r"ckpt\.safetensors"):
        describe(str(path))
