"""Folders of diffusers' AutoencoderRAE: outputs equal to diffusers' decoder, statistics, training on, and other encoders."""

import json

import pytest
import timm
import torch
from diffusers.models.autoencoders.autoencoder_rae import RAEDecoder
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from smtool.errors import CheckpointError, RecipeError, WeightsError
from smtool.networks.rae import RepresentationAutoencoder
from smtool.tokenizers import identify, open_tokenizer
from smtool.tokenizers.trainable import open_trainable

MODEL = "vit_small_patch14_reg4_dinov2.lvd142m"
CONFIG = {
    "_class_name": "AutoencoderRAE", "encoder_type": "dinov2", "encoder_hidden_size": 384, "encoder_patch_size": 14,
    "decoder_hidden_size": 24, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 40, "patch_size": 2, "encoder_input_size": 224, "image_size": 32,
    "encoder_norm_mean": [0.485, 0.456, 0.406], "encoder_norm_std": [0.229, 0.224, 0.225],
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with random weights of the encoder under timm's name."""
    folder = tmp_path_factory.mktemp("encoder")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model(MODEL, num_classes=0).state_dict(), folder / f"{MODEL}.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path, encoder):
    """A small random RAE as diffusers stores it, and its decoder."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        decoder = RAEDecoder(hidden_size=384, decoder_hidden_size=24, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
                             decoder_intermediate_size=40, num_patches=256, patch_size=2, image_size=32)
        for parameter in decoder.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    patches = load_file(encoder / f"{MODEL}.safetensors")["patch_embed.proj.weight"]
    tensors = {f"decoder.{name}": tensor.contiguous() for name, tensor in decoder.state_dict().items()}
    tensors |= {"_latents_mean": torch.randn(384, 16, 16), "_latents_std": torch.rand(384, 16, 16) + 0.5,
                "encoder.embeddings.patch_embeddings.projection.weight": patches,
                "encoder_mean": torch.zeros(1, 3, 1, 1), "encoder_std": torch.ones(1, 3, 1, 1)}
    place = tmp_path / "rae"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors, place / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return place, decoder, tensors


def test_it_decodes_as_diffusers_does_and_has_the_statistics_of_the_file(folder, encoder):
    place, decoder, tensors = folder
    assert (identify(place).kind, identify(place).format) == ("foreign", "AutoencoderRAE")
    opened = open_tokenizer(place, weights_dir=encoder)
    assert isinstance(opened, RepresentationAutoencoder) and opened.learned_from == ("dinov2-s-reg",)
    assert (opened.downsample, opened.latent_channels, opened.config.size) == (2, 384, "custom")
    latents = torch.randn(2, 384, 16, 16, generator=torch.Generator().manual_seed(2))
    normalized = opened.stats.normalize(latents)
    assert_close(normalized, (latents - tensors["_latents_mean"]) / (tensors["_latents_std"] + 1e-5))
    with torch.no_grad():
        logits = decoder(latents.flatten(2).mT).logits
    mean, std = (torch.tensor(CONFIG[f"encoder_norm_{key}"]).view(3, 1, 1) for key in ("mean", "std"))
    assert_close(opened.decode(latents), 2 * (decoder.unpatchify(logits) * std + mean) - 1, rtol=1e-4, atol=1e-5)
    assert opened.stats.kind == "element" and opened.stats.fits((384, 16, 16))


def test_it_can_be_trained_further(folder, encoder, monkeypatch):
    monkeypatch.setenv("SMTOOL_WEIGHTS", str(encoder))
    assert open_trainable(folder[0]).config.encoder == "dinov2-s-reg"


def test_other_and_absent_encoders_are_refused(folder, encoder, tmp_path, monkeypatch):
    place, _, tensors = folder
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("smtool.features.timm.hub_answers", lambda: False)
    with pytest.raises(WeightsError, match="an RAE needs its frozen encoder dinov2-s-reg"):
        open_tokenizer(place, weights_dir=tmp_path)
    other = {**tensors, "encoder.embeddings.patch_embeddings.projection.weight": torch.randn(384, 3, 14, 14)}
    save_file(other, place / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match="its encoder is not dinov2-s-reg"):
        open_tokenizer(place, weights_dir=encoder)
    save_file(tensors, place / "diffusion_pytorch_model.safetensors")
    (place / "config.json").write_text(json.dumps({**CONFIG, "encoder_norm_std": [0.5, 0.5, 0.5]}))
    with pytest.raises(CheckpointError, match=r"encoder_norm_std is \[0.5, 0.5, 0.5\], but that of dinov2-s-reg is \[0.229"):
        open_tokenizer(place, weights_dir=encoder)
    with pytest.raises(RecipeError, match="takes no settings"):
        identify(f"{place},padding=reflect")
    (place / "config.json").write_text(json.dumps({**CONFIG, "encoder_hidden_size": 64}))
    assert identify(place).kind == "diffusers"      # no encoder that has a name: diffusers runs it


def test_a_decoder_without_some_weights_is_refused(folder, encoder):
    place, _, tensors = folder
    name = "decoder.decoder_layers.1.attention.to_v.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, place / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match="the weights do not fit the architecture it states"):
        open_tokenizer(place, weights_dir=encoder)
