"""Files in LDM's format against a restatement of LDM's autoencoder that shares no code with ours, and against diffusers' own."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import save_file
from torch.testing import assert_close

from smtool.errors import CheckpointError
from smtool.interop import load_autoencoder
from smtool.networks.autoencoder import SDVAE

WIDTHS, BLOCKS, CHANNELS = (32, 64, 64), 2, 5
Weights = dict[str, torch.Tensor]


def ldm_weights(*, attention: tuple[int, ...] = (), quant: bool = True) -> Weights:
    """Random weights under LDM's names, in the order in which its constructors make them."""
    made: Weights = {}
    draw = torch.Generator().manual_seed(0)

    def conv(name: str, a: int, b: int, side: int = 3) -> None:
        made[f"{name}.weight"] = torch.randn(b, a, side, side, generator=draw) / (side * a**0.5)
        made[f"{name}.bias"] = 0.1 * torch.randn(b, generator=draw)

    def norm(name: str, a: int) -> None:
        made[f"{name}.weight"] = 1 + 0.1 * torch.randn(a, generator=draw)
        made[f"{name}.bias"] = 0.1 * torch.randn(a, generator=draw)

    def block(name: str, a: int, b: int) -> None:
        norm(f"{name}.norm1", a)
        conv(f"{name}.conv1", a, b)
        norm(f"{name}.norm2", b)
        conv(f"{name}.conv2", b, b)
        if a != b:
            conv(f"{name}.nin_shortcut", a, b, 1)

    def attend(name: str, a: int) -> None:
        norm(f"{name}.norm", a)
        for part in ("q", "k", "v", "proj_out"):
            conv(f"{name}.{part}", a, a, 1)

    def middle(name: str, a: int) -> None:
        block(f"{name}.block_1", a, a)
        attend(f"{name}.attn_1", a)
        block(f"{name}.block_2", a, a)

    conv("encoder.conv_in", 3, WIDTHS[0])
    now = WIDTHS[0]
    for level, width in enumerate(WIDTHS):
        for i in range(BLOCKS):
            block(f"encoder.down.{level}.block.{i}", now, width)
            now = width
            if level in attention:
                attend(f"encoder.down.{level}.attn.{i}", now)
        if level < len(WIDTHS) - 1:
            conv(f"encoder.down.{level}.downsample.conv", now, now)
    middle("encoder.mid", now)
    norm("encoder.norm_out", now)
    conv("encoder.conv_out", now, 2 * CHANNELS)
    conv("decoder.conv_in", CHANNELS, now)
    middle("decoder.mid", now)
    for level in reversed(range(len(WIDTHS))):
        for i in range(BLOCKS + 1):
            block(f"decoder.up.{level}.block.{i}", now, WIDTHS[level])
            now = WIDTHS[level]
            if level in attention:
                attend(f"decoder.up.{level}.attn.{i}", now)
        if level:
            conv(f"decoder.up.{level}.upsample.conv", now, now)
    norm("decoder.norm_out", now)
    conv("decoder.conv_out", now, 3)
    if quant:
        conv("quant_conv", 2 * CHANNELS, 2 * CHANNELS, 1)
        conv("post_quant_conv", CHANNELS, CHANNELS, 1)
    return made


class LDM:
    """What LDM's Encoder and Decoder compute, as functions of a dictionary: every layer is there if its weights are."""

    def __init__(self, weights: Weights) -> None:
        self.w = weights

    def conv(self, name: str, x: torch.Tensor, **options) -> torch.Tensor:
        weight = self.w[f"{name}.weight"]
        options.setdefault("padding", weight.shape[-1] // 2)
        return F.conv2d(x, weight, self.w[f"{name}.bias"], **options)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, 32, self.w[f"{name}.weight"], self.w[f"{name}.bias"], eps=1e-6)

    def swish(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)

    def block(self, name: str, x: torch.Tensor) -> torch.Tensor:
        h = self.conv(f"{name}.conv1", self.swish(self.norm(f"{name}.norm1", x)))
        h = self.conv(f"{name}.conv2", self.swish(self.norm(f"{name}.norm2", h)))
        return h + (self.conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.w else x)

    def attend(self, name: str, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", h).flatten(2) for part in "qkv")
        scores = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / q.shape[1] ** 0.5, dim=2)
        return x + self.conv(f"{name}.proj_out", torch.einsum("bij,bcj->bci", scores, v).view_as(x))

    def level(self, name: str, x: torch.Tensor) -> torch.Tensor:
        i = 0
        while f"{name}.block.{i}.conv1.weight" in self.w:
            x = self.block(f"{name}.block.{i}", x)
            if f"{name}.attn.{i}.q.weight" in self.w:
                x = self.attend(f"{name}.attn.{i}", x)
            i += 1
        assert i
        return x

    def middle(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return self.block(f"{name}.block_2", self.attend(f"{name}.attn_1", self.block(f"{name}.block_1", x)))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv("encoder.conv_in", x)
        for level in range(len(WIDTHS)):
            x = self.level(f"encoder.down.{level}", x)
            if level < len(WIDTHS) - 1:
                x = self.conv(f"encoder.down.{level}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2, padding=0)
        x = self.conv("encoder.conv_out", self.swish(self.norm("encoder.norm_out", self.middle("encoder.mid", x))))
        return self.conv("quant_conv", x) if "quant_conv.weight" in self.w else x

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        z = self.conv("post_quant_conv", z) if "post_quant_conv.weight" in self.w else z
        x = self.middle("decoder.mid", self.conv("decoder.conv_in", z))
        for level in reversed(range(len(WIDTHS))):
            x = self.level(f"decoder.up.{level}", x)
            if level:
                x = self.conv(f"decoder.up.{level}.upsample.conv", x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        return self.conv("decoder.conv_out", self.swish(self.norm("decoder.norm_out", x)))


IMAGES = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
# float32; both run the same convolutions, and may sum the attention in another order
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.mark.parametrize("quant", [True, False])
@pytest.mark.parametrize("attention", [(), (2,), (0, 1)])
def test_an_ldm_file_computes_what_ldm_computes(attention, quant, tmp_path):
    """Attention at the lowest level: LDM's kl-f16 and VA-VAE; no quant convolutions: FLUX."""
    weights = ldm_weights(attention=attention, quant=quant)
    save_file(weights, tmp_path / "vae.safetensors")
    ours, theirs = load_autoencoder(tmp_path / "vae.safetensors"), LDM(weights)
    assert (ours.section.attention, ours.section.quant_convs, ours.section.blocks_per_level) == (attention, quant, BLOCKS)
    with torch.no_grad():
        mean, logvar = theirs.encode(IMAGES).chunk(2, dim=1)
        posterior = ours.encode(IMAGES)
        assert_close(posterior.mean, mean, **CLOSE)
        assert_close(posterior.logvar, logvar, **CLOSE)
        assert_close(ours.decode(mean), theirs.decode(mean), **CLOSE)


def test_gradients_equal_those_of_the_restatement(tmp_path):
    """By name: each weight of ours is the weight of LDM's that it should be."""
    weights = {name: value.requires_grad_() for name, value in ldm_weights(attention=(2,)).items()}
    save_file({name: value.detach() for name, value in weights.items()}, tmp_path / "vae.safetensors")
    ours, theirs = load_autoencoder(tmp_path / "vae.safetensors"), LDM(weights)
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
        assert_close(parameter.grad.norm(), theirs_total[name], rtol=1e-4, atol=0)


def test_diffusers_reads_the_same_file_alike(tmp_path):
    """Its own conversion of a single file, without attention at the levels, of which it knows no name."""
    weights = ldm_weights()
    save_file(weights, tmp_path / "vae.safetensors")
    config = {"block_out_channels": WIDTHS, "layers_per_block": BLOCKS, "latent_channels": CHANNELS}
    config |= {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    theirs = AutoencoderKL(**config)
    theirs.load_state_dict(convert_ldm_vae_checkpoint(dict(weights), {**theirs.config}), strict=True)
    ours = load_autoencoder(tmp_path / "vae.safetensors")
    with torch.no_grad():
        mean = theirs.encode(IMAGES).latent_dist.mean
        assert_close(ours.encode(IMAGES).mean, mean, **CLOSE)
        assert_close(ours.decode(mean), theirs.decode(mean).sample, **CLOSE)


def wrapped(kind: str, weights: Weights) -> dict:
    """As trainers keep them: beside a loss, a teacher or a U-Net, in dictionaries, behind prefixes."""
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
def test_weights_are_found_in_what_trainers_wrap_around_them(kind, suffix, tmp_path):
    weights = ldm_weights()
    torch.save(wrapped(kind, weights), tmp_path / f"last{suffix}")
    ours = load_autoencoder(tmp_path / f"last{suffix}")
    assert torch.equal(ours.encoder.conv_in.weight, weights["encoder.conv_in.weight"])
    assert torch.equal(ours.decoder.up_blocks[2].resnets[0].conv1.weight, weights["decoder.up.0.block.0.conv1.weight"])


def test_a_whole_ldm_states_its_scale_and_a_bare_autoencoder_none(tmp_path):
    torch.save(wrapped("LDM", ldm_weights()), tmp_path / "model.ckpt")
    stats = load_autoencoder(tmp_path / "model.ckpt").stats
    assert (stats.kind, stats.data, stats.std.item(), stats.mean.item()) == ("scalar", "published", 2.0, 0.0)
    torch.save(ldm_weights(), tmp_path / "vae.pt")
    assert load_autoencoder(tmp_path / "vae.pt").stats is None


@pytest.mark.parametrize(
    ("neighbour", "prefix", "shift", "scale"),
    [
        ("cond_stage_model.transformer.x", "first_stage_model.", 0.0, 0.18215),
        ("conditioner.embedders.0.x", "first_stage_model.", 0.0, 0.13025),
        ("model.diffusion_model.joint_blocks.0.x", "first_stage_model.", 0.0609, 1.5305),
        ("model.diffusion_model.double_blocks.0.x", "vae.", 0.1159, 0.3611),
    ],
)
def test_a_whole_checkpoint_is_normalized_as_its_family_publishes(neighbour, prefix, shift, scale, tmp_path):
    tensors = {f"{prefix}{name}": value for name, value in ldm_weights().items()}
    save_file({**tensors, neighbour: torch.zeros(1)}, tmp_path / "model.safetensors")
    latents = torch.randn(1, CHANNELS, 2, 2)
    found = load_autoencoder(tmp_path / "model.safetensors").stats.normalize(latents)
    assert_close(found, (latents - shift) * scale, rtol=1e-5, atol=1e-6)


def test_padding_is_ldms_unless_asked_for(tmp_path):
    torch.save(ldm_weights(), tmp_path / "vae.pt")
    assert load_autoencoder(tmp_path / "vae.pt").section.downsample_pad == "asymmetric"
    assert load_autoencoder(tmp_path / "vae.pt", downsample_pad="symmetric").section.downsample_pad == "symmetric"


def test_published_f16_with_attention_at_16_cells_is_recognized(tmp_path):
    """LDM's kl-f16 and VA-VAE f16d32, in shape: five levels, attention at the last."""
    with torch.device("meta"):
        expected = SDVAE(downsample=16, latent_channels=32, attention=(4,))
        shapes = {name: tuple(value.shape) for name, value in expected.build().state_dict().items()}
    from smtool.interop.detect import detect

    assert detect(tmp_path, shapes).section == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.conv_in.weight": torch.zeros(32, 1, 3, 3)}, "takes images of 1 channel, but RGB images have 3"),
        ({"decoder.conv_out.weight": torch.zeros(1, 32, 3, 3)}, "makes images of 1 channel, but"),
        ({"encoder.conv_out.weight": torch.zeros(5, 64, 3, 3)}, "gives 5 channels for a latent of 5"),
        ({"quantize.embedding.weight": torch.zeros(8, 5)}, "vector-quantized"),
        ({"encoder.down.1.extra.weight": torch.zeros(1)}, "1 unexpected, first encoder.down_blocks.1.extra.weight"),
    ],
)
def test_another_autoencoder_is_refused_with_what_it_is(change, message, tmp_path):
    save_file({**ldm_weights(), **change}, tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_autoencoder(tmp_path / "vae.safetensors")


def test_a_file_without_its_decoder_is_refused(tmp_path):
    save_file({n: v for n, v in ldm_weights().items() if n.startswith("encoder")}, tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match=r"key names of LDM, but is not a whole autoencoder: 'decoder\.conv_in\.weight'"):
        load_autoencoder(tmp_path / "vae.safetensors")
