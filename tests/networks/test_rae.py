"""RAE's decoder against diffusers', its frozen encoder, and what it refuses."""

import math

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_rae import RAEDecoder
from torch.testing import assert_close

from smtool.features.encoder import supply_encoder
from smtool.networks.rae import RAE, RepresentationAutoencoder
from smtool.networks.recompute import recompute_activations
from smtool.randomness import initializing

SIZES = {"size": "custom", "depth": 2, "width": 24, "heads": 2, "hidden": 40}
TINY = RAE(encoder="random", latent_channels=128, downsample=4, **SIZES)


def built(table: RAE = TINY) -> RepresentationAutoencoder:
    with initializing(0, "rae"):
        network = table.build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return network


def in_diffusers(network: RepresentationAutoencoder, side: int) -> RAEDecoder:
    """The decoder as diffusers' class, with the same weights."""
    config = network.config
    theirs = RAEDecoder(
        hidden_size=config.latent_channels, decoder_hidden_size=config.width, decoder_num_hidden_layers=config.depth,
        decoder_num_attention_heads=config.heads, decoder_intermediate_size=config.hidden, num_patches=side**2,
        patch_size=config.downsample, image_size=side * config.downsample,
    )
    ours, named = network.decoder, {}
    for name, layer in (("decoder_embed", ours.embed), ("decoder_norm", ours.norm), ("decoder_pred", ours.head)):
        named |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}
    for number, block in enumerate(ours.blocks):
        for key in ("weight", "bias"):
            parts = getattr(block.attn.qkv, key).chunk(3)
            named |= {f"decoder_layers.{number}.attention.to_{q}.{key}": part for q, part in zip("qkv", parts, strict=True)}
            for place, layer in {
                "attention.to_out.0": block.attn.proj, "intermediate.dense": block.mlp.fc1, "output.dense": block.mlp.fc2,
                "layernorm_before": block.norm1, "layernorm_after": block.norm2,
            }.items():
                named[f"decoder_layers.{number}.{place}.{key}"] = getattr(layer, key)
    theirs.load_state_dict({**named, "trainable_cls_token": ours.class_token})
    return theirs


def test_the_decoder_is_diffusers_and_its_gradients_too():
    """At 16x16 cells: for other grids diffusers scales positions to 16 cells, while MAE, and RAE's own code, count cells."""
    network = built().double()
    theirs = in_diffusers(network, 16).double()
    latents = torch.randn(2, 128, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits = theirs(latents.flatten(2).mT).logits
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mean, std = (torch.tensor(value, dtype=torch.float64).view(3, 1, 1) for value in imagenet)
    expected = 2 * (theirs.unpatchify(logits) * std + mean) - 1
    network.mean, network.std = mean.flatten(), std.flatten()      # exact in float64
    found = network.decode(latents)
    assert_close(found, expected, rtol=1e-6, atol=1e-6)      # the table of positions is float32
    target = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (found - target).abs().mean().backward()
    (expected - target).abs().mean().backward()
    assert_close(network.decoder.embed.weight.grad, theirs.decoder_embed.weight.grad, rtol=1e-6, atol=1e-9)
    assert_close(network.decoder.class_token.grad, theirs.trainable_cls_token.grad, rtol=1e-6, atol=1e-9)


def test_positions_are_sines_and_cosines_of_column_and_row():
    decoder, width = built().decoder, TINY.width
    table = decoder._table(3, 5, torch.device("cpu"))
    for row in range(3):
        for column in range(5):
            angles = [place / 10_000 ** (k / (width // 4)) for place in (column, row) for k in range(width // 4)]
            half = width // 4
            expected = [f(a) for part in (angles[:half], angles[half:]) for f in (math.sin, math.cos) for a in part]
            assert_close(table[5 * row + column], torch.tensor(expected))


def test_the_class_token_is_one_more_token_that_no_pixel_shows():
    network = built()
    latents = torch.randn(1, 128, 2, 3, generator=torch.Generator().manual_seed(1))
    before = network.decode(latents)
    with torch.no_grad():
        network.decoder.class_token.add_(torch.linspace(-1, 1, TINY.width))      # a constant would leave with the norms
    assert before.shape == (1, 3, 8, 12) and not torch.allclose(network.decode(latents), before)


def test_latents_have_mean_0_and_variance_1_in_every_cell_and_no_gradient():
    network = built()
    supply_encoder(network)
    images = (torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_()
    posterior = network.encode(images)
    assert posterior.mean.shape == (2, 128, 4, 6) and not posterior.mean.requires_grad and network.deterministic
    assert_close(posterior.mean.mean(1), torch.zeros(2, 4, 6), atol=1e-5, rtol=0)
    assert_close(posterior.mean.var(1, correction=0), torch.ones(2, 4, 6), atol=1e-3, rtol=0)
    assert torch.equal(posterior.sample(torch.ones_like(posterior.mean)), posterior.mean)
    brighter = network.encode(images * 0.5).mean
    assert (brighter - posterior.mean).abs().mean() > 0.05      # contrast is not normalized away


def test_the_encoder_is_in_no_state_dict_and_the_digest_names_it():
    network = built()
    before = network.digest
    supply_encoder(network)
    assert not list(network.encoder.parameters()) and not [name for name in network.state_dict() if name.startswith("encoder")]
    assert network.config.encoder_digest == network.encoder.digest and network.digest != before
    assert network.part("encoder") == [] and len(network.part("decoder")) == len(list(network.parameters()))
    assert len(network.part("last-layers")) == 4


def test_without_its_encoder_it_decodes_but_does_not_encode():
    network = built()
    assert network.decode(torch.zeros(1, 128, 2, 2)).shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match="can only decode here: its frozen encoder random was not loaded"):
        network.encode(torch.zeros(1, 3, 8, 8))


def test_recomputed_activations_give_the_same_bits():
    plain, checkpointed = built(), built()
    assert recompute_activations(checkpointed) == TINY.depth
    latents = torch.randn(2, 128, 3, 2, generator=torch.Generator().manual_seed(0))
    for network in (plain, checkpointed):
        network.decode(latents).square().mean().backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name


@pytest.mark.parametrize(("keys", "said"), [
    ({"size": "B", "depth": 3}, r'is 12 in size "B", but is 3; use size = "custom"'),
    ({"size": "custom", "depth": 2, "width": 24, "heads": 2}, 'is required with size = "custom", which has no default hidden'),
    ({"size": "custom", "depth": 2, "width": 26, "heads": 2, "hidden": 8}, "must be a multiple of 4"),
    ({"size": "custom", "depth": 2, "width": 24, "heads": 5, "hidden": 8}, "must divide width = 24, but is 5"),
])  # fmt: skip
def test_impossible_decoders_are_refused(keys, said):
    with pytest.raises(ValueError, match=said):
        RAE(**keys)
