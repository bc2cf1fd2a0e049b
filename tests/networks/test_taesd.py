"""The TAESD family compared with a restatement of its published layers, applied in the order of their numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from smtool.networks.taesd import TAESD

ENCODER = ["conv", "block", *["shrink", "block", "block", "block"] * 3, "conv"]
F32_ENCODER = ["shrink+", "relu", "shrink+", "relu", "block", *["shrink", "block", "block", "block"] * 3, "conv"]
STAGE = ["block", "block", "block", "grow", "conv-"]
DECODER = ["clamp", "conv", "relu", *STAGE * 3, "block", "conv"]
F32_DECODER = ["clamp", "conv", "relu", *STAGE * 5, "block", "conv"]
# widths after each layer with weights, and which layers are pooled
FAMILY = {
    "plain-4": ("plain", 4, (ENCODER, [3] + [64] * 14 + [4]), (DECODER, [4] + [64] * 14 + [3]), (), ()),
    "plain-16": ("plain", 16, (ENCODER, [3] + [64] * 14 + [16]), (DECODER, [16] + [64] * 14 + [3]), (), ()),
    "pooled-32": ("pooled", 32, (ENCODER, [3] + [64] * 14 + [32]), (DECODER, [32] + [64] * 14 + [3]), (11, 12, 13), (3, 4, 5)),
    "f32-32": (
        "f32",
        32,
        (F32_ENCODER, [3, 32] + [64] * 14 + [32]),
        (F32_DECODER, [32] + [256] * 4 + [128] * 4 + [64] * 14 + [3]),
        (),
        (),
    ),
}


def weights(plan, widths, pooled, draw):
    """Random weights named by layer number; each layer with weights takes the next entry of `widths`."""
    made, at = {}, 0

    def conv(name, before, after, side=3, bias=True):
        made[f"{name}.weight"] = torch.randn(after, before, side, side, generator=draw) * (1.4 / (side * before**0.5))
        if bias:
            made[f"{name}.bias"] = 0.1 * torch.randn(after, generator=draw)

    for number, layer in enumerate(plan):
        if layer in ("clamp", "relu", "grow"):
            continue
        before, after = widths[at], widths[at + 1]
        at += 1
        if layer == "block":
            for part in (0, 2, 4):
                conv(f"{number}.conv.{part}", before, before)
            if number in pooled:
                conv(f"{number}.pool.0", before, 4 * before, 1, bias=False)
                made[f"{number}.pool.1.weight"] = 1 + 0.1 * torch.randn(4 * before, generator=draw)
                made[f"{number}.pool.1.bias"] = 0.1 * torch.randn(4 * before, generator=draw)
                conv(f"{number}.pool.3", 4 * before, before, 1, bias=False)
        else:
            conv(str(number), before, after, bias=layer not in ("shrink", "conv-"))
    return made


def walk(plan, w, x):
    for number, layer in enumerate(plan):
        if layer == "clamp":
            x = 3 * torch.tanh(x / 3)
        elif layer == "relu":
            x = x.clamp(min=0)
        elif layer == "grow":
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        elif layer == "block":
            if f"{number}.pool.0.weight" in w:
                wide = F.conv2d(x, w[f"{number}.pool.0.weight"])
                grouped = wide.unflatten(1, (4, -1))
                mean, var = grouped.mean((2, 3, 4), keepdim=True), grouped.var((2, 3, 4), keepdim=True, unbiased=False)
                wide = ((grouped - mean) / (var + 1e-5).sqrt()).flatten(1, 2)
                scale, shift = (w[f"{number}.pool.1.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
                x = x + F.conv2d((wide * scale + shift).clamp(min=0), w[f"{number}.pool.3.weight"])
            h = x
            for part in (0, 2, 4):
                h = F.conv2d(h, w[f"{number}.conv.{part}.weight"], w[f"{number}.conv.{part}.bias"], padding=1)
                h = h.clamp(min=0) if part < 4 else h
            x = (h + x).clamp(min=0)
        else:
            stride = 2 if layer.startswith("shrink") else 1
            x = F.conv2d(x, w[f"{number}.weight"], w.get(f"{number}.bias"), stride=stride, padding=1)
    return x


@pytest.mark.parametrize("name", FAMILY)
def test_every_member_computes_its_published_layers(name):
    layout, channels, (encoder, widths_in), (decoder, widths_out), pooled_in, pooled_out = FAMILY[name]
    draw = torch.Generator().manual_seed(0)
    theirs = weights(encoder, widths_in, pooled_in, draw), weights(decoder, widths_out, pooled_out, draw)
    ours = TAESD(layout=layout, latent_channels=channels).build()
    ours.encoder.load_state_dict(theirs[0])
    ours.decoder.load_state_dict(theirs[1])
    images = torch.rand(2, 3, 64, 96, generator=draw)
    with torch.no_grad():
        latents = walk(encoder, theirs[0], images)
        assert 0.1 < latents.std() < 100
        posterior = ours.encode(2 * images - 1)
        assert_close(posterior.mean, latents, rtol=1e-5, atol=1e-5 * latents.abs().max().item())
        latents = 4 * latents / latents.std()      # large enough for the clamp to have an effect
        decoded = walk(decoder, theirs[1], latents)
        assert_close(ours.decode(latents), 2 * decoded - 1, rtol=1e-5, atol=1e-5 * decoded.abs().max().item())
    f = 32 if layout == "f32" else 8
    assert (ours.downsample, ours.latent_shape(64, 96)) == (f, (channels, 64 // f, 96 // f))
    assert torch.equal(posterior.sample(torch.ones_like(posterior.mean)), posterior.mean)


@pytest.mark.parametrize(
    ("layout", "channels", "count"),
    [("plain", 4, 1_222_532 + 1_222_531), ("pooled", 32, 2_677_027)],
)
def test_parameters_are_as_many_as_published(layout, channels, count):
    """The author's README for 4 channels, the tensors of taef2's two files for 32."""
    assert sum(parameter.numel() for parameter in TAESD(layout=layout, latent_channels=channels).build().parameters()) == count


@pytest.mark.parametrize("layout", ["plain", "pooled", "f32"])
def test_gradients_reach_every_weight(layout):
    ours = TAESD(layout=layout, latent_channels=2, width=4).build()
    ours.decode(ours.encode(torch.rand(2, 3, 64, 64) * 2 - 1).mean).square().sum().backward()
    assert [name for name, parameter in ours.named_parameters() if parameter.grad is None] == []


def test_the_digest_differs_between_weights_and_layouts():
    one, other = (TAESD(latent_channels=2, width=4).build() for _ in range(2))
    assert one.digest != other.digest
    other.load_state_dict(one.state_dict())
    assert one.digest == other.digest


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="'plain', 'pooled' or 'f32'"):
        TAESD(layout="f16")
