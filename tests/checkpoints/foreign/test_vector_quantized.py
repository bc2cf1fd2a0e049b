"""Vector-quantized autoencoders compared with a restatement of LDM's VQModel, and with diffusers' VQModel."""

import pytest
import torch
from diffusers import VQModel
from safetensors.torch import save_file
from torch.testing import assert_close

from smtool.errors import CheckpointError
from smtool.tokenizers import open_tokenizer

# float64, because rounding in float32 differs between processors
IMAGES = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
CODES = 40
# tokenizers run by diffusers return float32: one rounding, at most 2^-24 of the value
CLOSE = {"rtol": 2**-24, "atol": 1e-11}


@pytest.mark.parametrize("attention", [(), (2,)])
@pytest.mark.parametrize("place", ["", "state_dict.", "first_stage_model."])
def test_a_file_computes_what_ldm_computes(ldm, attention, place, tmp_path):
    """With attention in the lowest level as in taming-transformers' VQGAN, and without as in LDM's vq-f4."""
    weights = ldm.weights(attention=attention, codes=CODES)
    beside = {"loss.discriminator.x": torch.zeros(1), "quantize.embedding.cluster_size": torch.ones(CODES)}
    save_file({f"{place}{name}": value for name, value in {**weights, **beside}.items()}, tmp_path / "vq.safetensors")
    tokenizer, theirs = open_tokenizer(str(tmp_path / "vq.safetensors"), image_size=32).double(), ldm.restated(weights)
    assert (tokenizer.downsample, tokenizer.latent_channels) == (4, ldm.code_width)
    assert (tokenizer.deterministic, tokenizer.stats) == (True, None)
    assert tokenizer.architecture == f"VQModel (latents before quantization to the nearest of {CODES} codes) f4, 3 channels"
    with torch.no_grad():
        latents = theirs.encode(IMAGES)
        assert_close(tokenizer.encode(IMAGES).mean.double(), latents, **CLOSE)
        assert_close(tokenizer.decode(latents).double(), theirs.decode(theirs.quantize(latents)), **CLOSE)


def test_its_average_is_taken(ldm, tmp_path):
    weights = ldm.weights(codes=CODES)
    averages = {f"model_ema.{name.replace('.', '')}": value.roll(1, 0) for name, value in weights.items()}
    save_file({**weights, **averages}, tmp_path / "vq.safetensors")
    tokenizer = open_tokenizer(str(tmp_path / "vq.safetensors"), image_size=32).double()
    rolled = ldm.restated({name: value.roll(1, 0) for name, value in weights.items()})
    with torch.no_grad():
        assert_close(tokenizer.encode(IMAGES).mean.double(), rolled.encode(IMAGES), **CLOSE)


@pytest.mark.parametrize("folder", [True, False])
def test_diffusers_own_is_run_by_diffusers(folder, tmp_path):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    theirs = VQModel(block_out_channels=(32, 64), layers_per_block=1, num_vq_embeddings=CODES, scaling_factor=0.5, **blocks)
    theirs = theirs.eval()
    if folder:
        theirs.save_pretrained(tmp_path)
    else:
        save_file(theirs.state_dict(), tmp_path / "vq.safetensors")
    tokenizer = open_tokenizer(str(tmp_path if folder else tmp_path / "vq.safetensors"), image_size=32).double()
    assert tokenizer.stats.std.item() == 2.0 if folder else tokenizer.stats is None
    theirs.double()
    with torch.no_grad():
        latents = theirs.encode(IMAGES).latents
        assert_close(tokenizer.encode(IMAGES).mean.double(), latents, **CLOSE)
        assert_close(tokenizer.decode(latents).double(), theirs.decode(latents).sample, **CLOSE)


def test_another_way_to_quantize_is_refused(ldm, tmp_path):
    """Weights of other quantizers (Gumbel, residual), such as a projection, are not ignored."""
    save_file({**ldm.weights(codes=CODES), "quantize.proj.weight": torch.zeros(1)}, tmp_path / "vq.safetensors")
    with pytest.raises(CheckpointError, match="vector-quantized autoencoder, but a KL autoencoder"):
        open_tokenizer(str(tmp_path / "vq.safetensors"))
    other = {"encoder.conv_blocks.0.res.0.conv1.weight": torch.zeros(1), "quantize.embedding.weight": torch.zeros(8, 8)}
    save_file(other, tmp_path / "llamagen.safetensors")
    with pytest.raises(CheckpointError, match=r"vector-quantized autoencoders that do not have LDM's layout can be opened with"):
        open_tokenizer(str(tmp_path / "llamagen.safetensors"))
