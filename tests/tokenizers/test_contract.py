"""Requirements for all kinds of tokenizers: shapes, errors, gradients if it can be trained, storage if it can be rebuilt."""

import pytest
import timm
import torch
from diffusers import AutoencoderDC, AutoencoderTiny, VQModel
from safetensors.torch import save_file

from smtool.checkpoints import write_autoencoder
from smtool.networks.epsilon_vae import EpsilonVAE
from smtool.networks.sd_vae import SDVAE
from smtool.networks.taesd import TAESD
from smtool.tokenizers import Tokenizer, identify, open_tokenizer
from smtool.tokenizers.stored import rebuilt

SIDE = 64
MODULE = """
import torch.nn.functional as F
class Pool:
    def encode(self, x):
        return F.avg_pool2d(x, 4)
    def decode(self, z):
        return F.interpolate(z, scale_factor=4.0)
"""
KINDS = {
    "pixels": "pixels",
    "control:crop": "control",
    "dct:4x9": "dct",
    "timm:resnet10t": "encoder",
    "mine_for_contract:Pool": "object",
    "runs/sdvae": "trained",
    "runs/epsilon": "trained",
    "tae_encoder.pth": "foreign",
    "dc": "foreign",
    "tiny": "diffusers",
    "vq": "diffusers",
}
STORED = ("pixels", "control:crop", "dct:4x9", "runs/sdvae", "runs/epsilon", "tae_encoder.pth", "dc")
TRAINABLE = ("runs/sdvae", "runs/epsilon", "tae_encoder.pth", "dc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One small tokenizer of every kind."""
    folder = tmp_path_factory.mktemp("tokenizers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = SDVAE(downsample=4, latent_channels=2, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1).build()
        tiny = TAESD(layout="pooled", latent_channels=2, width=8).build()
        sides: dict = {}
        for half in ("encoder", "decoder"):
            sides |= {f"{half}_block_types": ("ResBlock",) * 3, f"{half}_block_out_channels": (8, 8, 16)}
            sides |= {f"{half}_layers_per_block": (1,) * 3, f"{half}_qkv_multiscales": ((),) * 3}
        AutoencoderDC(latent_channels=8, attention_head_dim=8, **sides).save_pretrained(folder / "dc")
        widths = {f"{half}_block_out_channels": (8,) * 4 for half in ("encoder", "decoder")}
        AutoencoderTiny(**widths, num_encoder_blocks=(1,) * 4).save_pretrained(folder / "tiny")
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
        VQModel(block_out_channels=(32, 32), layers_per_block=1, num_vq_embeddings=16, **blocks).save_pretrained(folder / "vq")
        save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), folder / "resnet10t.safetensors")
        small = {"downsample": 4, "latent_channels": 2, "channels": (8, 8, 8), "norm_groups": 4, "denoiser_blocks": 1}
        epsilon = EpsilonVAE(**small, sampling_steps=2).build()
    write_autoencoder(folder / "runs/epsilon/ckpt.safetensors", epsilon, {"recipe": {"seed": 3}})
    write_autoencoder(folder / "runs/sdvae/ckpt.safetensors", autoencoder, {"recipe": {"seed": 3}})
    for name, half in (("encoder", tiny.encoder), ("decoder", tiny.decoder)):
        torch.save(half.state_dict(), folder / f"tae_{name}.pth")
    (folder / "mine_for_contract.py").write_text(MODULE)
    return folder


@pytest.fixture(params=KINDS)
def name(request, folder, monkeypatch) -> str:
    monkeypatch.chdir(folder)
    return request.param


@pytest.fixture
def tokenizer(name, folder) -> Tokenizer:
    return open_tokenizer(name, image_size=SIDE, weights_dir=folder)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_its_kind_is_identified_without_loading_it(name):
    found = identify(name)
    assert found.kind == KINDS[name]
    assert identify(found.place).kind == found.kind


def test_shapes_are_those_it_states_and_both_directions_are_finite(tokenizer, images):
    channels, height, width = tokenizer.latent_shape(SIDE, SIDE)
    assert (channels, height, width) == (tokenizer.latent_channels, SIDE // tokenizer.downsample, SIDE // tokenizer.downsample)
    posterior = tokenizer.encode(images)
    assert posterior.mean.shape == posterior.logvar.shape == (2, channels, height, width)
    assert posterior.mean.dtype == torch.float32 and posterior.mean.isfinite().all()
    noisy = posterior.sample(torch.ones_like(posterior.mean))
    assert noisy.isfinite().all() and torch.equal(noisy, posterior.mean) == tokenizer.deterministic
    if tokenizer.can_decode:
        decoded = tokenizer.decode(posterior.mean)
        assert decoded.shape == images.shape and decoded.isfinite().all()
    else:
        with pytest.raises(ValueError, match="only encodes: it has no decoder"):
            tokenizer.decode(posterior.mean)


def test_an_image_at_a_time_gives_the_same_latents(tokenizer, images):
    """Compared in float32: convolutions add in a different order for another batch size."""
    one_by_one = torch.cat([tokenizer.encode(image[None]).mean for image in images])
    torch.testing.assert_close(one_by_one, tokenizer.encode(images).mean, rtol=1e-4, atol=1e-4)


def test_its_attributes_describe_it(name, tokenizer, folder):
    assert tokenizer.source == name and tokenizer.label
    assert f"f{tokenizer.downsample}, {tokenizer.latent_channels} channels" in tokenizer.architecture
    assert len(tokenizer.digest) == 64 and tokenizer.digest == open_tokenizer(name, image_size=SIDE, weights_dir=folder).digest
    assert tokenizer.device == torch.device("cpu")
    assert not tokenizer.training and not any(parameter.requires_grad for parameter in tokenizer.parameters())
    assert tokenizer.recipe == ({"seed": 3} if name.startswith("runs/") else {})


def test_a_size_that_does_not_fit_is_refused(tokenizer):
    if tokenizer.downsample > 1:
        with pytest.raises(ValueError, match=r"must be multiples of|was opened for images of"):
            tokenizer.encode(torch.zeros(1, 3, SIDE + 1, SIDE))


@pytest.mark.parametrize("name", TRAINABLE, indirect=True)
def test_gradients_pass_through_networks_of_smtool(tokenizer, images):
    tokenizer.requires_grad_(True)
    tokenizer.decode(tokenizer.encode(images).mode()).square().mean().backward()
    reached = {key.split(".")[0] for key, parameter in tokenizer.named_parameters() if parameter.grad is not None}
    assert {"encoder", "decoder"} <= reached


def test_a_tokenizer_with_a_config_can_be_rebuilt_from_it(name, tokenizer, images, tmp_path):
    if name not in STORED:
        assert tokenizer.config is None
        return
    again = rebuilt(tmp_path, tokenizer.config.model_dump(mode="json"))
    again.load_state_dict(tokenizer.state_dict(), assign=True)
    again.eval().requires_grad_(False)
    assert again.digest == tokenizer.digest
    assert torch.equal(again.encode(images).mean, tokenizer.encode(images).mean)
