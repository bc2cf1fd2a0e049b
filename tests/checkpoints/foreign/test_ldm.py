"""Files in LDM's format compared with an independent restatement of LDM's autoencoder, and with diffusers' reader."""

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import save_file
from torch.testing import assert_close

from smtool.errors import CheckpointError
from smtool.networks.sd_vae import SDVAE
from smtool.tokenizers import load_autoencoder

# float64, because rounding in float32 differs between processors
IMAGES = torch.randn(1, 3, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


@pytest.mark.parametrize("quant", [True, False])
@pytest.mark.parametrize("attention", [(), (2,), (0, 1)])
def test_an_ldm_file_computes_what_ldm_computes(ldm, attention, quant, tmp_path):
    """Attention at the lowest level: LDM's kl-f16 and VA-VAE; no quant convolutions: FLUX."""
    weights = ldm.weights(attention=attention, quant=quant)
    save_file(weights, tmp_path / "vae.safetensors")
    ours, theirs = opened(tmp_path / "vae.safetensors").double(), ldm.restated(weights)
    assert (ours.config.attention, ours.config.quant_convs, ours.config.blocks_per_level) == (attention, quant, ldm.blocks)
    with torch.no_grad():
        mean, logvar = theirs.encode(IMAGES).chunk(2, dim=1)
        posterior = ours.encode(IMAGES)
        assert_close(posterior.mean, mean, **CLOSE)
        assert_close(posterior.logvar, logvar, **CLOSE)
        assert_close(ours.decode(mean), theirs.decode(mean), **CLOSE)


def test_flux2_has_its_1x1_convolutions_inside_and_a_batch_norm_beside(ldm, tmp_path):
    weights = ldm.weights()
    inside = {"quant_conv.": "encoder.quant_conv.", "post_quant_conv.": "decoder.post_quant_conv."}
    stored = {
        next((new + name.removeprefix(old) for old, new in inside.items() if name.startswith(old)), name): value
        for name, value in weights.items()
    }
    assert stored.keys() ^ weights.keys() == {f"{p}{q}" for q in ("weight", "bias") for o in inside.items() for p in o}
    save_file({**stored, "bn.running_mean": torch.ones(4 * ldm.channels)}, tmp_path / "ae.safetensors")
    ours, theirs = opened(tmp_path / "ae.safetensors").double(), ldm.restated(weights)
    with torch.no_grad():
        mean = theirs.encode(IMAGES).chunk(2, dim=1)[0]
        assert_close(ours.encode(IMAGES).mean, mean, **CLOSE)
        assert_close(ours.decode(mean), theirs.decode(mean), **CLOSE)
    assert ours.stats is None


def test_gradients_equal_those_of_the_restatement(ldm, tmp_path):
    """Compared by name: each weight corresponds to the right weight of LDM."""
    weights = ldm.weights(attention=(2,))
    save_file(weights, tmp_path / "vae.safetensors")
    weights = {name: value.double().requires_grad_() for name, value in weights.items()}
    ours, theirs = opened(tmp_path / "vae.safetensors").double(), ldm.restated(weights)
    expected = theirs.decode(theirs.encode(IMAGES).chunk(2, dim=1)[0])
    found = ours.decode(ours.encode(IMAGES).mean)
    gradients = torch.autograd.grad(expected.sum(), [*weights.values()])
    theirs_total = {name: gradient.norm() for name, gradient in zip(weights, gradients, strict=True)}
    found.sum().backward()
    assert len(weights) == len(list(ours.parameters()))
    pairs = {
        "decoder.up.0.block.2.conv2.weight": ours.decoder.up_blocks[2].resnets[2].conv2.weight,
        "decoder.up.2.attn.1.v.weight": ours.decoder.up_blocks[0].attentions[1].to_v.weight,
        "decoder.up.1.upsample.conv.weight": ours.decoder.up_blocks[1].upsamplers[0].conv.weight,
        "encoder.down.1.block.0.nin_shortcut.weight": ours.encoder.down_blocks[1].resnets[0].conv_shortcut.weight,
        "encoder.mid.attn_1.proj_out.weight": ours.encoder.mid_block.attentions[0].to_out[0].weight,
    }
    for name, parameter in pairs.items():
        assert_close(parameter.grad.norm(), theirs_total[name], rtol=1e-9, atol=0)


def test_diffusers_reads_the_same_file_with_the_same_result(ldm, tmp_path):
    """diffusers' conversion of a single file, without attention in the levels, which it does not support."""
    weights = ldm.weights()
    save_file(weights, tmp_path / "vae.safetensors")
    config = {"block_out_channels": ldm.widths, "layers_per_block": ldm.blocks, "latent_channels": ldm.channels}
    config |= {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    theirs = AutoencoderKL(**config)
    theirs.load_state_dict(convert_ldm_vae_checkpoint(dict(weights), {**theirs.config}), strict=True)
    ours = opened(tmp_path / "vae.safetensors").double()
    theirs.double()
    with torch.no_grad():
        mean = theirs.encode(IMAGES).latent_dist.mean
        assert_close(ours.encode(IMAGES).mean, mean, **CLOSE)
        assert_close(ours.decode(mean), theirs.decode(mean).sample, **CLOSE)


def opened(path, **options):
    """Widths of these tests are not published ones, so the number of norm groups must be given."""
    return load_autoencoder(f"{path},norm_groups=32", **options)


def wrapped(kind: str, weights: dict) -> dict:
    """The weights as trainers store them: with a loss, a teacher or a U-Net, in dictionaries, with prefixes."""
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    beside = {"loss.discriminator.main.0.weight": torch.zeros(2), "loss.logvar": torch.zeros(())}
    return {
        "lightning": {"state_dict": {**weights, **beside}, "epoch": 3, "optimizer_states": [{"lr": 0.1}]},
        "VA-VAE": {"state_dict": {**weights, **beside, "foundation_model.blocks.0.weight": torch.zeros(2)}},
        "LDM": {
            "state_dict": {
                **{f"first_stage_model.{name}": value for name, value in weights.items()},
                "model.diffusion_model.out.2.weight": torch.zeros(2),
                "scale_factor": torch.tensor(0.5),
            }
        },
        "average": {"model": other, "ema": weights, "args": {"lr": 1e-4}},
        "distributed": {"model": {f"module.{name}": value for name, value in weights.items()}},
    }[kind]


@pytest.mark.parametrize("kind", ["lightning", "VA-VAE", "LDM", "average", "distributed"])
@pytest.mark.parametrize("suffix", [".ckpt", ".pt"])
def test_weights_are_found_in_trainers_checkpoints(ldm, kind, suffix, tmp_path):
    weights = ldm.weights()
    torch.save(wrapped(kind, weights), tmp_path / f"last{suffix}")
    ours = opened(tmp_path / f"last{suffix}")
    assert torch.equal(ours.encoder.conv_in.weight, weights["encoder.conv_in.weight"])
    assert torch.equal(ours.decoder.up_blocks[2].resnets[0].conv1.weight, weights["decoder.up.0.block.0.conv1.weight"])


@pytest.mark.parametrize("place", ["", "state_dict.", "first_stage_model."])
def test_the_average_in_the_file_is_used_if_it_is_that_of_the_autoencoder(ldm, place, tmp_path):
    """LDM's LitEma removes the dots of names and averages only trained weights: here the decoder. The averages of a diffusion
    model are not those of its first stage."""
    weights = ldm.weights()
    averages = {f"model_ema.{n.replace('.', '')}": 2 * v for n, v in weights.items() if n.startswith("decoder.")}
    beside = {**averages, "model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(3)}
    save_file({f"{place}{name}": value for name, value in {**weights, **beside}.items()}, tmp_path / "last.safetensors")
    ours = opened(tmp_path / "last.safetensors")
    factor = 1 if place == "first_stage_model." else 2
    assert torch.equal(ours.decoder.up_blocks[2].resnets[0].conv1.weight, factor * weights["decoder.up.0.block.0.conv1.weight"])
    assert torch.equal(ours.encoder.conv_in.weight, weights["encoder.conv_in.weight"])


def test_a_full_ldm_checkpoint_has_a_scale_and_a_bare_autoencoder_has_none(ldm, tmp_path):
    torch.save(wrapped("LDM", ldm.weights()), tmp_path / "model.ckpt")
    stats = opened(tmp_path / "model.ckpt").stats
    assert (stats.kind, stats.data, stats.std.item(), stats.mean.item()) == ("scalar", "published", 2.0, 0.0)
    torch.save(ldm.weights(), tmp_path / "vae.pt")
    assert opened(tmp_path / "vae.pt").stats is None


@pytest.mark.parametrize(
    ("neighbour", "prefix", "shift", "scale"),
    [
        ("cond_stage_model.transformer.x", "first_stage_model.", 0.0, 0.18215),
        ("cond_stage_model.model.x", "first_stage_model.", 0.0, 0.18215),
        ("conditioner.embedders.0.x", "first_stage_model.", 0.0, 0.13025),
        ("model.diffusion_model.joint_blocks.0.x", "first_stage_model.", 0.0609, 1.5305),
        ("model.diffusion_model.double_blocks.0.x", "vae.", 0.1159, 0.3611),
    ],
)
def test_a_whole_checkpoint_is_normalized_as_its_family_publishes(ldm, neighbour, prefix, shift, scale, tmp_path):
    tensors = {f"{prefix}{name}": value for name, value in ldm.weights().items()}
    save_file({**tensors, neighbour: torch.zeros(1)}, tmp_path / "model.safetensors")
    latents = torch.randn(1, ldm.channels, 2, 2)
    found = opened(tmp_path / "model.safetensors").stats.normalize(latents)
    assert_close(found, (latents - shift) * scale, rtol=1e-5, atol=1e-6)


def test_the_scale_of_stable_diffusion_is_not_given_to_models_of_classes(ldm, tmp_path):
    tensors = {f"first_stage_model.{name}": value for name, value in ldm.weights().items()}
    save_file({**tensors, "cond_stage_model.embedding.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert opened(tmp_path / "model.safetensors").stats is None


def test_padding_is_ldms_unless_asked_for(ldm, tmp_path):
    torch.save(ldm.weights(), tmp_path / "vae.pt")
    assert opened(tmp_path / "vae.pt").config.downsample_pad == "asymmetric"
    assert opened(tmp_path / "vae.pt", downsample_pad="symmetric").config.downsample_pad == "symmetric"


def test_published_f16_with_attention_at_16_cells_is_recognized(tmp_path):
    """The shapes of LDM's kl-f16 and of VA-VAE f16d32: five levels, attention in the last."""
    with torch.device("meta"):
        expected = SDVAE(downsample=16, latent_channels=32, attention=(4,))
        shapes = {name: tuple(value.shape) for name, value in expected.build().state_dict().items()}
    from smtool.checkpoints.foreign.detect import detect

    assert detect(tmp_path, shapes).config == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.conv_in.weight": torch.zeros(32, 1, 3, 3)}, "encodes images of 1 and decodes images of 3 channels"),
        ({"decoder.conv_out.weight": torch.zeros(1, 32, 3, 3)}, "encodes images of 3 and decodes images of 1 channels"),
        ({"encoder.conv_out.weight": torch.zeros(5, 64, 3, 3)}, "has 5 output channels for 5 latent channels"),
        ({"quantize.embedding.weight": torch.zeros(8, 5)}, r"VQModel of diffusers, but only AutoencoderKL"),
        ({"encoder.down.1.extra.weight": torch.zeros(1)}, "1 unexpected, first encoder.down_blocks.1.extra.weight"),
    ],
)
def test_another_autoencoder_is_refused_with_what_it_is(ldm, change, message, tmp_path):
    save_file({**ldm.weights(), **change}, tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_autoencoder(tmp_path / "vae.safetensors") if "quantize" in str(change) else opened(tmp_path / "vae.safetensors")


def test_a_file_without_its_decoder_is_refused(ldm, tmp_path):
    save_file({n: v for n, v in ldm.weights().items() if n.startswith("encoder")}, tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match=r"holds only the encoder of an autoencoder; its decoder is missing"):
        opened(tmp_path / "vae.safetensors")
