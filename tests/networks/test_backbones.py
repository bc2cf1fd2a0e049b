"""Requirements for all backbones of `AnyBackbone`. A new member needs only an entry in KNOWN here."""

from dataclasses import dataclass, field
from typing import Any, get_args

import pytest
import torch
from torch.testing import assert_close

from smtool.networks import AnyBackbone
from smtool.networks.dit_dh import DiTDH
from smtool.networks.lightning_dit import LightningDiT
from smtool.networks.sit import SiT
from smtool.networks.transformer import LatentTransformer, TransformerConfig
from smtool.networks.uvit import UViT
from smtool.storage import read_tensors, write_tensors

BACKBONES = get_args(get_args(AnyBackbone)[0])
TINY = {"size": "custom", "depth": 2, "width": 16, "heads": 2}
# float64 on both sides; only the order of additions differs.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


@dataclass(frozen=True)
class Known:
    """published: size -> number of parameters for latents (4, 32, 32), patch 2 and `classes` classes. blocks: number of blocks of
    TINY. first_two: name prefixes of the first two blocks. last_layers: name prefixes of layers that must get no gradient from
    tokens tapped after them. more: further keys of TINY."""

    classes: int
    published: dict[str, int]
    blocks: int
    first_two: tuple[str, str]
    last_layers: tuple[str, ...]
    more: dict[str, int] = field(default_factory=dict)


KNOWN: dict[Any, Known] = {
    SiT: Known(
        1000,
        {"S": 32_957_200, "B": 130_500_112, "L": 458_086_416, "XL": 675_111_184},
        2,
        ("blocks.0", "blocks.1"),
        ("final_layer",),
    ),
    LightningDiT: Known(
        1000,
        {"B": 130_531_600, "L": 458_120_176, "XL": 675_219_856, "1p0B": 1_029_351_952, "1p6B": 1_631_709_760},
        2,
        ("blocks.0", "blocks.1"),
        ("final_layer",),
    ),
    DiTDH: Known(
        1000,
        {"S": 193_086_052, "B": 290_637_412, "L": 617_893_444, "XL": 834_728_548},
        2,
        ("blocks.0", "blocks.1"),
        ("blocks.4", "x_embedder", "s_projector", "final_layer"),
        {"head_depth": 1, "head_width": 16, "head_heads": 2},
    ),
    UViT: Known(
        0,
        {"S": 44_259_492, "S-deep": 57_912_484, "M": 130_122_404, "L": 285_737_124, "H": 499_677_860},
        3,
        ("in_blocks.0", "in_blocks.1"),
        ("mid_block", "final_layer", "norm", "decoder_pred"),
    ),
}


def tiny(kind) -> dict[str, Any]:
    return {**TINY, **KNOWN[kind].more}


def test_the_union_has_members_with_names_of_their_own():
    assert len(BACKBONES) >= 2
    assert len({kind.model_fields["kind"].default for kind in BACKBONES}) == len(BACKBONES)
    assert all(issubclass(kind, TransformerConfig) for kind in BACKBONES)


@pytest.mark.parametrize("kind", BACKBONES)
def test_published_sizes_have_the_published_parameter_counts(kind):
    known = KNOWN[kind]
    assert set(known.published) == set(kind.SIZES) - {"nano"}
    with torch.device("meta"):
        for size, total in known.published.items():
            assert count(kind(size=size).build((4, 32, 32), known.classes)) == total
        assert count(kind(size="nano").build((4, 16, 16), 10)) < 2_500_000


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_any_patch_goes_with_latents_that_are_not_square(kind, patch):
    network = kind(**tiny(kind), patch=patch).build((3, 8, 16), 5)
    assert network.token_grid == (8 // patch, 16 // patch)
    prediction = network(torch.randn(2, 3, 8, 16), torch.tensor([0.5, 1.0]), torch.tensor([0, 5]), tap=1)
    assert prediction.output.shape == (2, 3, 8, 16)
    assert prediction.tokens.shape == (2, 128 // patch**2, 16)
    assert network(torch.randn(2, 3, 8, 16), torch.tensor([0.5, 1.0]), torch.tensor([0, 5])).tokens is None


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_network_rebuilt_from_its_table_and_its_file_is_the_same_function(kind, num_classes, tmp_path):
    network = randomized(kind(**tiny(kind)).build((4, 4, 6), num_classes))
    write_tensors(tmp_path / "network.safetensors", network.state_dict(), {})
    with torch.device("meta"):
        again = kind.model_validate(network.config.model_dump(mode="json")).build((4, 4, 6), num_classes)
    again.load_state_dict(read_tensors(tmp_path / "network.safetensors"), assign=True)
    x, t, labels = torch.randn(2, 4, 4, 6), torch.rand(2), torch.tensor([0, 3]) if num_classes else None
    assert torch.equal(again(x, t, labels).output, network(x, t, labels).output)


@pytest.mark.parametrize("kind", BACKBONES)
def test_latents_in_channels_last_order_give_the_same_numbers(kind):
    network = randomized(kind(**tiny(kind)).build((4, 4, 6), 0)).double()
    x, t = torch.randn(2, 4, 4, 6, dtype=torch.float64), torch.rand(2, dtype=torch.float64)
    expected = network(x, t, None).output
    assert_close(network(x.contiguous(memory_format=torch.channels_last), t, None).output, expected, **CLOSE)


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_latent_that_patches_do_not_tile_is_refused_with_the_patch_that_does(kind):
    config = kind(**tiny(kind), patch=4)
    assert config.token_grid((4, 8, 12)) == (2, 3)
    with pytest.raises(ValueError, match=r"latent of 8x6 .* patch = 4: .* patch = 2 works"):
        config.build((4, 8, 6), 10)


@pytest.mark.parametrize("kind", BACKBONES)
def test_attributes_that_the_rest_of_smtool_uses(kind):
    network: LatentTransformer = kind(**tiny(kind), patch=2).build((4, 8, 6), 10)
    assert (network.token_grid, network.width, network.num_classes) == ((4, 3), 16, 10)
    assert network.latent_shape == (4, 8, 6)
    assert network.depth == KNOWN[kind].blocks
    assert network.config == kind(**tiny(kind), patch=2)


@pytest.mark.parametrize("kind", BACKBONES)
def test_invalid_calls_are_errors_with_the_reason(kind):
    x, t, labels = torch.zeros(2, 4, 8, 6), torch.zeros(2), torch.zeros(2, dtype=torch.int64)
    conditional, unconditional = kind(**tiny(kind)).build((4, 8, 6), 10), kind(**tiny(kind)).build((4, 8, 6), 0)
    with pytest.raises(ValueError, match=r"latents are 4x6x8, but .* built for 4x8x6"):
        conditional(x.mT, t, labels)
    with pytest.raises(ValueError, match="has 10 classes and needs labels; the null class is 10"):
        conditional(x, t, None)
    with pytest.raises(ValueError, match="no classes: pass labels = None"):
        unconditional(x, t, labels)
    for tap in (0, conditional.depth + 1):
        with pytest.raises(ValueError, match=f"after block {tap}: this network has blocks 1 to {conditional.depth}"):
            conditional(x, t, labels, tap=tap)
    with pytest.raises(ValueError, match=r"num_classes must be at least 0 .*, but is -1"):
        kind(**tiny(kind)).build((4, 8, 6), -1)


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_loss_of_tapped_tokens_reaches_only_the_blocks_before(kind, num_classes):
    network = kind(**{**tiny(kind), "depth": 4}).build((4, 4, 4), num_classes)
    labels = torch.tensor([0, 3]) if num_classes else None
    prediction = network(torch.randn(2, 4, 4, 4), torch.rand(2), labels, tap=2)
    prediction.tokens.square().sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    blocks = KNOWN[kind].first_two
    assert {".".join(name.split(".")[:2]) for name in reached if "blocks" in name} == set(blocks)
    assert not any(name.startswith(KNOWN[kind].last_layers) for name in reached)


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_trained_parameter_is_used(kind):
    network = randomized(kind(**tiny(kind)).build((4, 4, 4), 3))
    network(torch.randn(2, 4, 4, 4), torch.rand(2), torch.tensor([0, 3])).output.square().sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_sample_does_not_depend_on_its_batch(kind):
    network = randomized(kind(**tiny(kind)).build((4, 4, 6), 3)).double()
    x, t, labels = torch.randn(3, 4, 4, 6, dtype=torch.float64), torch.rand(3, dtype=torch.float64), torch.tensor([0, 3, 1])
    together = network(x, t, labels).output
    for i in range(3):
        assert_close(network(x[i : i + 1], t[i : i + 1], labels[i : i + 1]).output, together[i : i + 1], **CLOSE)


@pytest.mark.parametrize("kind", BACKBONES)
def test_under_autocast_the_residual_stream_stays_float32(kind):
    network = randomized(kind(**{**tiny(kind), "depth": 4}).build((4, 4, 4), 3))
    x, t, labels = torch.randn(8, 4, 4, 4), torch.rand(8), torch.randint(4, (8,))
    for tap in range(1, network.depth + 1):
        expected = network(x, t, labels, tap=tap)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network(x, t, labels, tap=tap)
        assert found.tokens.dtype == torch.float32
        assert relative(found.tokens, expected.tokens) < 0.02
        assert relative(found.output.float(), expected.output) < 0.02  # bfloat16 rounds by 0.4 %


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def randomized(network: LatentTransformer) -> LatentTransformer:
    """The network with random weights of a realistic scale, also in layers initialized with 0 (adaLN-zero)."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
