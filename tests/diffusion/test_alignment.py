import json

import pytest
import torch
from pydantic import TypeAdapter
from torch.testing import assert_close

from smtool.diffusion import AnyAlignment, IRepa, Repa, RepaDog
from smtool.errors import RecipeError

GRID = (4, 6)
WIDTH, DIM = 10, 7
SECTIONS = {
    "repa": Repa(teacher="dinov2", hidden=16),
    "irepa": IRepa(teacher="dinov2"),
    "repa-dog": RepaDog(teacher="dinov2", sigma1=0.5, sigma2=3.0),
}


def _count(module):
    return sum(p.numel() for p in module.parameters())


def _inputs():
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, GRID[0] * GRID[1], WIDTH, generator=rng)
    return tokens, torch.randn(3, DIM, *GRID, generator=rng) + 0.5


def _built(config):
    torch.manual_seed(0)
    return config.build(WIDTH, GRID, teacher_dim=DIM, teacher_grid=GRID)


@pytest.mark.parametrize(("width", "count"), [(384, 6_558_464), (768, 7_344_896), (1024, 7_869_184), (1152, 8_131_328)])
def test_repas_projector_has_the_published_size(width, count):
    """Source: released-code.md#sizes-of-sit, for SiT S, B, L and XL and a teacher of dimension 768."""
    with torch.device("meta"):
        assert _count(Repa(teacher="dinov2").build(width, (16, 16), teacher_dim=768, teacher_grid=(16, 16))) == count


@pytest.mark.parametrize(("kernel", "count"), [(1, 590_592), (3, 5_309_184)])
def test_irepas_projector_has_the_published_size(kernel, count):
    with torch.device("meta"):
        alignment = IRepa(teacher="dinov2", kernel=kernel).build(768, (16, 16), teacher_dim=768, teacher_grid=(16, 16))
    assert _count(alignment) == count


def test_repas_projector_is_three_layers_with_silu_between():
    first, _, second, _, third = projector = _built(SECTIONS["repa"]).projector
    tokens, _ = _inputs()
    x = tokens @ first.weight.T + first.bias
    x = (x * torch.sigmoid(x)) @ second.weight.T + second.bias
    assert_close(projector(tokens), (x * torch.sigmoid(x)) @ third.weight.T + third.bias)


def test_the_loss_is_the_mean_cosine_token_by_token():
    """Compared with a double loop; REPA does not change features, so a token's target is the feature at its row and column."""
    alignment = _built(SECTIONS["repa"])
    tokens, features = _inputs()
    projected = alignment.projector(tokens)
    total = 0.0
    for b in range(3):
        for row in range(GRID[0]):
            for column in range(GRID[1]):
                a, f = projected[b, row * GRID[1] + column].double(), features[b, :, row, column].double()
                total += (a @ f / (a.norm() * f.norm())).item()
    assert alignment(tokens, features).item() == pytest.approx(-total / (3 * GRID[0] * GRID[1]), abs=1e-6)


@pytest.mark.parametrize("kind", SECTIONS)
def test_a_perfect_projection_has_loss_minus_one(kind):
    config = SECTIONS[kind]
    alignment = _built(config)
    _, features = _inputs()
    alignment.projector = torch.nn.Identity()
    tokens = 3 * config.target(features).flatten(2).transpose(1, 2)
    assert alignment(tokens, features).item() == pytest.approx(-1, abs=1e-6)
    assert alignment(-tokens, features).item() == pytest.approx(1, abs=1e-6)


def test_irepa_subtracts_part_of_the_mean_and_divides_by_the_spread():
    _, features = _inputs()
    mean, std = features.mean((2, 3), keepdim=True), features.std((2, 3), keepdim=True, unbiased=True)
    assert_close(SECTIONS["irepa"].target(features), (features - 0.6 * mean) / (std + 1e-6))


def test_difference_of_gaussians_contains_irepa():
    _, features = _inputs()
    for gamma in (0.6, 1.0):
        dog = RepaDog(teacher="dinov2", sigma1=0, sigma2="inf", alpha=gamma)
        assert_close(dog.target(features), IRepa(teacher="dinov2", gamma=gamma).target(features), rtol=0, atol=1e-5)
    with_dog, with_irepa = _built(RepaDog(teacher="dinov2", sigma1=0, sigma2="inf", alpha=0.6)), _built(IRepa(teacher="dinov2"))
    assert_close(with_dog(*_inputs()), with_irepa(*_inputs()))


def test_the_convolution_takes_tokens_in_row_major_order():
    """The projected token at (row, column) of a one-hot token map is the kernel's weight for that offset."""
    alignment = _built(SECTIONS["irepa"])
    conv = alignment.projector
    tokens = torch.zeros(1, GRID[0] * GRID[1], WIDTH)
    tokens[0, 2 * GRID[1] + 3, 5] = 1                               # row 2, column 3, channel 5
    out = conv(tokens)[0].unflatten(0, GRID) - conv.bias
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            down, right = 2 - row + 1, 3 - column + 1
            inside = 0 <= down < 3 and 0 <= right < 3
            expected = conv.weight[:, 5, down, right] if inside else torch.zeros(DIM)
            assert_close(out[row, column], expected)


@pytest.mark.parametrize("kind", SECTIONS)
def test_gradient_reaches_tokens_and_projector_and_nothing_else(kind):
    alignment = _built(SECTIONS[kind])
    tokens, features = (value.requires_grad_() for value in _inputs())
    alignment(tokens, features).backward()
    assert features.grad is None
    assert tokens.grad.abs().sum() > 0
    for name, parameter in alignment.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", SECTIONS)
def test_under_autocast_target_and_cosine_stay_in_float32(kind):
    alignment = _built(SECTIONS[kind])
    tokens, features = _inputs()
    reference = alignment(tokens, features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert alignment.projector(tokens).dtype == torch.bfloat16
        mixed = alignment(tokens, features)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(reference.item(), abs=5e-3)
    alignment.projector = torch.nn.Identity()
    exact = SECTIONS[kind].target(features).flatten(2).mT
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert alignment(exact, features).item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("kind", SECTIONS)
def test_different_grids_are_refused_unless_the_recipe_resamples(kind):
    config = SECTIONS[kind]
    with pytest.raises(RecipeError, match=r"4x6 tokens, but dinov2 has 8x12 features") as caught:
        config.build(WIDTH, GRID, teacher_dim=DIM, teacher_grid=(8, 12))
    assert 'alignment.resize = "bilinear"' in str(caught.value)
    alignment = config.model_copy(update={"resize": "bilinear"}).build(WIDTH, GRID, teacher_dim=DIM, teacher_grid=(8, 12))
    tokens, features = _inputs()
    constant_over_cells = features.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = torch.nn.functional.interpolate(constant_over_cells, size=GRID, mode="bilinear", antialias=True)
    assert_close(alignment(tokens, constant_over_cells), alignment(tokens, expected))


def test_the_table_is_chosen_by_kind_and_survives_json():
    table = TypeAdapter(AnyAlignment)
    for config in (*SECTIONS.values(), RepaDog(teacher="random", sigma1=0, sigma2=float("inf"))):
        assert table.validate_python(json.loads(json.dumps(config.model_dump(mode="json"), allow_nan=False))) == config
    assert RepaDog(teacher="random", sigma1=0, sigma2=float("inf")).sigma2 == "inf"


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="must be odd"):
        IRepa(teacher="dinov2", kernel=2)
    with pytest.raises(ValueError, match="sigma2"):
        RepaDog(teacher="dinov2", sigma1=0.5)                       # both widths are required
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        RepaDog(teacher="dinov2", sigma1=0.5, sigma2=-1)


def test_repas_layers_start_xavier_uniform_with_zero_bias():
    torch.manual_seed(0)
    for layer in list(Repa(teacher="dinov2", hidden=256).build(300, GRID, teacher_dim=200, teacher_grid=GRID).projector)[::2]:
        bound = (6 / sum(layer.weight.shape)) ** 0.5
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
        assert not layer.bias.any()
