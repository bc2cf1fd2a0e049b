"""Requirements for all autoencoders of `AnyAutoencoder`. A new member needs only an entry in KNOWN here."""

from dataclasses import dataclass
from typing import Any, get_args, get_origin

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.testing import assert_close

from smtool.checkpoints.autoencoder import read_autoencoder, write_autoencoder
from smtool.features.encoder import supply_encoder
from smtool.networks import AnyAutoencoder
from smtool.networks.dc_ae import DCAE
from smtool.networks.epsilon_vae import EpsilonVAE
from smtool.networks.posterior import LatentStats
from smtool.networks.rae import RAE
from smtool.networks.sd_vae import SDVAE
from smtool.networks.taesd import TAESD
from smtool.networks.tokenizer import Tokenizer
from smtool.networks.trainable import DiffusionAutoencoder


def members(union: Any) -> tuple[Any, ...]:
    (kinds, *_) = get_args(union)
    return get_args(kinds) if get_origin(kinds) is not None else (kinds,)


@dataclass(frozen=True)
class Known:
    """tiny: keys of a small network. published: (keys, numbers of parameters in total, encoder, decoder).

    frozen_encoder: the encoder is in no state dict, and the decoder has no upsampling.
    """

    tiny: dict[str, Any]
    published: list[tuple[dict[str, Any], int, int, int]]
    frozen_encoder: bool = False


AUTOENCODERS = members(AnyAutoencoder)
TABLE: TypeAdapter[Any] = TypeAdapter(AnyAutoencoder)
KNOWN: dict[Any, Known] = {
    SDVAE: Known(
        {"downsample": 4, "latent_channels": 3, "channels": (8, 8, 16), "norm_groups": 4, "blocks_per_level": 1},
        [
            ({"downsample": 8, "latent_channels": 4}, 83_653_863, 34_163_592, 49_490_179),
            ({"downsample": 16, "latent_channels": 16}, 64_352_723, 26_162_464, 38_188_931),
            ({"downsample": 32, "latent_channels": 64}, 93_363_651, 38_408_064, 54_934_915),
            ({"downsample": 64, "latent_channels": 256}, 267_690_883, 109_931_264, 157_431_171),
        ],
    ),
    TAESD: Known(
        {"latent_channels": 3, "width": 8},
        [({"latent_channels": 4}, 2_445_063, 1_222_532, 1_222_531)],
    ),
    EpsilonVAE: Known(
        {
            "downsample": 4, "latent_channels": 3, "channels": (8, 8, 16), "norm_groups": 4, "blocks_per_level": 1,
            "denoiser_blocks": 1, "sampling_steps": 2,
        },
        [],      # no size of the denoiser is published
    ),
    DCAE: Known(
        {"downsample": 4, "latent_channels": 4, "channels": (8, 16, 32), "encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1, 1),
         "attention": (2,), "head_channels": 8},
        [
            ({"downsample": 32, "latent_channels": 32}, 323_356_460, 123_172_384, 200_184_076),
            ({"downsample": 64, "latent_channels": 128}, 676_896_140, 264_550_528, 412_345_612),
            ({"downsample": 128, "latent_channels": 512}, 1_120_682_252, 415_661_056, 705_021_196),
        ],
    ),
    RAE: Known(
        {
            "encoder": "random", "latent_channels": 128, "downsample": 8,
            "size": "custom", "depth": 2, "width": 24, "heads": 2, "hidden": 32,
        },
        # the counts of released-code.md#rae, and the class token
        [
            ({"size": "B"}, 86_237_184 + 768, 0, 86_237_184 + 768),
            ({"size": "L"}, 303_886_080 + 1024, 0, 303_886_080 + 1024),
            ({"size": "XL"}, 415_055_488 + 1152, 0, 415_055_488 + 1152),
        ],
        frozen_encoder=True,
    ),
}
SIDES = (3, 5)
"""Height and width of the tests' latents, in cells."""


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def tiny(kind: Any) -> Any:
    network = kind(**KNOWN[kind].tiny).build()
    supply_encoder(network)
    return network


def pictures(network: Any, count: int = 1, **options: Any) -> Tensor:
    """Random images whose latents have SIDES."""
    height, width = (side * network.downsample for side in SIDES)
    return torch.randn(count, 3, height, width, **options)


def test_a_table_without_a_kind_is_an_sd_vae():
    assert AUTOENCODERS
    assert TABLE.validate_python({"latent_channels": 2}) == SDVAE(latent_channels=2)
    for kind in AUTOENCODERS:
        name = kind.model_fields["kind"].default
        assert type(TABLE.validate_python({"kind": name, **KNOWN[kind].tiny})) is kind


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_published_sizes_have_the_published_parameter_counts(kind):
    for keys, *expected in KNOWN[kind].published:
        with torch.device("meta"):
            network = kind(**keys).build()
        assert [count(network), count(network.encoder), count(network.decoder)] == expected


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_it_is_a_tokenizer_whose_shapes_follow_its_table(kind):
    network = tiny(kind)
    assert isinstance(network, Tokenizer) and network.can_decode
    images = pictures(network, 2)
    sides = images.shape[-2:]
    latents = network.encode(images).mode()
    assert latents.shape[1:] == network.latent_shape(*sides) == network.config.latent_shape(*sides)
    assert latents.shape == (2, network.latent_channels, *SIDES)
    assert network.decode(latents).shape == images.shape


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_gradients_reach_every_parameter_and_the_last_layers_are_among_them(kind):
    torch.manual_seed(0)      # other draws may leave a ReLU without gradient
    network = tiny(kind)
    posterior = network.encode(pictures(network, 2))
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0))
    loss = network.decode(posterior.sample(noise)).square().mean()
    if not network.deterministic:
        loss = loss + posterior.kl().mean()
    loss.backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.abs().any()] == []
    behind = {id(parameter) for parameter in network.decoder.parameters()}
    inside = behind if KNOWN[kind].frozen_encoder else {id(parameter) for parameter in network.encoder.parameters()}
    assert id(network.encoder_last_layer) in inside and id(network.decoder_last_layer) in behind


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_a_file_gives_back_the_same_function_its_table_and_its_digest(kind, tmp_path):
    network = tiny(kind)
    before = set(network.state_dict())
    network.stats = LatentStats("scalar", torch.zeros(1), torch.ones(1), count=1, data="")
    assert set(network.state_dict()) == before      # statistics are stored in the metadata
    write_autoencoder(tmp_path / "ckpt.safetensors", network, {})
    again = read_autoencoder(tmp_path / "ckpt.safetensors")
    assert (again.config, again.digest, again.stats.count) == (network.config, network.digest, 1)
    images = pictures(network)
    # with its weights copied: those of a file lie at other places in memory, for which a linear layer may add in another order
    again.load_state_dict({name: tensor.clone() for name, tensor in again.state_dict().items()}, assign=True)
    assert torch.equal(reconstructed(again, images), reconstructed(network, images))
    assert kind.model_validate(network.config.model_dump(mode="json")) == network.config


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_channels_last_gives_the_same_numbers_in_its_own_layout(kind):
    network = tiny(kind).double()
    images = pictures(network, 2, dtype=torch.float64)
    expected = reconstructed(network, images)
    network.to(memory_format=torch.channels_last)
    found = reconstructed(network, images.contiguous(memory_format=torch.channels_last))
    # float64 on both sides: only the order of additions differs; a frozen encoder stays float32
    assert_close(found, expected, **{"rtol": 1e-3, "atol": 1e-5} if KNOWN[kind].frozen_encoder else {"rtol": 1e-9, "atol": 1e-11})
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_under_autocast_the_posterior_is_float32_and_results_are_close(kind):
    network = tiny(kind)
    images = pictures(network)
    expected = network.encode(images).mean
    with torch.autocast("cpu", dtype=torch.bfloat16):
        posterior = network.encode(images)
        decoded = network.decode(posterior.mode())
    assert decoded.dtype == (torch.float32 if isinstance(network, DiffusionAutoencoder) else torch.bfloat16)
    assert (posterior.mean.dtype, posterior.logvar.dtype) == (torch.float32, torch.float32)
    assert (posterior.mean - expected).norm() < 0.05 * expected.norm()      # bfloat16 rounds by 0.4 %


@pytest.mark.parametrize("kind", AUTOENCODERS)
@pytest.mark.parametrize("shape", [(18, 16), (16, 18), (0, 16)])
def test_a_side_that_is_no_multiple_of_downsample_is_refused(kind, shape):
    network = tiny(kind)
    with pytest.raises(ValueError, match=rf"multiples of {network.downsample}, such as|smaller than one latent cell"):
        network.encode(torch.zeros(1, 3, *shape))
    with pytest.raises(ValueError, match=rf"multiples of downsample = {network.downsample}"):
        network.config.latent_shape(*shape)


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_encoder_and_decoder_are_the_whole_network_and_latents_depend_on_the_encoder_alone(kind):
    network = tiny(kind)
    encoder, decoder = set(network.part("encoder")), set(network.part("decoder"))
    assert encoder | decoder == {name for name, _ in network.named_parameters()} and not encoder & decoder
    images = pictures(network)
    latents, decoded = network.encode(images).mode(), reconstructed(network, images)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in decoder:
                parameter.add_(0.1)
    assert torch.equal(network.encode(images).mode(), latents)
    assert not torch.equal(network.decode(latents), decoded)


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_the_last_layers_follow_the_last_upsampling(kind):
    """Their inputs have the size of the image; the input of every other layer of the decoder with parameters is smaller.

    Except, in a denoiser, those of its first level, and embeddings of times, which have no size.
    """
    network = tiny(kind)
    if KNOWN[kind].frozen_encoder:      # no layer of its decoder sees the size of the image
        assert {name.split(".")[1] for name in network.part("last-layers")} == {"norm", "head"}
        return
    sides: dict[str, int] = {}
    for name, module in network.decoder.named_modules():
        if list(module.parameters(recurse=False)) and "time" not in name:
            module.register_forward_pre_hook(lambda _, given, name=name: sides.__setitem__(name, given[0].shape[-1]))
    images = pictures(network)
    network.decode(network.encode(images).mode())
    last = {name.removeprefix("decoder.").rpartition(".")[0] for name in network.part("last-layers") if ".time." not in name}
    assert last == {name for name, side in sides.items() if side == images.shape[-1]} - upsampling(network)
    assert network.part("*.bias") == [name for name, _ in network.named_parameters() if name.endswith(".bias")]


def upsampling(network: Any) -> set[str]:
    """The convolutions that belong to an upsampling layer itself, and the layers of a denoiser before its first downsampling."""
    before = ("conv_in", "down_blocks.0.") if isinstance(network, DiffusionAutoencoder) else ()
    names = [name for name, _ in network.decoder.named_modules()]
    return {name for name in names if "upsamplers" in name or ".resample." in name or name.startswith(before)}


def reconstructed(network: Any, images: Tensor) -> Tensor:
    decoded: Tensor = network.decode(network.encode(images).mode())
    return decoded
