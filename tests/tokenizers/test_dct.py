"""`dct:BxM` against a restatement with scipy and loops over blocks, on real photographs; its names, losses and errors."""

import numpy as np
import pytest
import scipy.fft
import skimage.data
import torch
from torch.testing import assert_close

from smtool.errors import RecipeError
from smtool.tokenizers import identify, open_tokenizer
from smtool.tokenizers.block_dct import zigzag
from smtool.tokenizers.dct import DCT, dct, luma_dc, measured_eta_of, needs_measured_eta, round_trip_losses, stale_eta
from smtool.tokenizers.published_dct import PUBLISHED

SHAPE = (64, 96)
JPEG_4 = [0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15]


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Two photographs (2, 64, 96, 3), uint8: a portrait and a cat."""
    height, width = SHAPE
    return np.stack([skimage.data.astronaut()[40 : 40 + height, 170 : 170 + width], skimage.data.chelsea()[90:154, 120:216]])


@pytest.fixture(scope="module")
def images(photographs) -> torch.Tensor:
    return torch.from_numpy(photographs).permute(0, 3, 1, 2).float() / 127.5 - 1


def planes_of(pixels: np.ndarray, chroma: str) -> list[np.ndarray]:
    """Y, Cb, Cr of one image (H, W, 3) by JPEG's formulas, chroma halved by the mean of 2x2 pixels."""
    red, green, blue = pixels.astype(np.float64).transpose(2, 0, 1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    differences = [-0.168736 * red - 0.331264 * green + 0.5 * blue + 128, 0.5 * red - 0.418688 * green - 0.081312 * blue + 128]
    if chroma == "420":
        differences = [(x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4 for x in differences]
    return [luma, *differences]


def tokens_by_loops(pixels: np.ndarray, block: int, order: list[int], chroma: str, eta: float) -> np.ndarray:
    """(channels, H / 2B, W / 2B) of one image."""
    planes = planes_of(pixels, chroma)
    height, width = pixels.shape[0] // (2 * block), pixels.shape[1] // (2 * block)
    columns = []
    for row in range(height):
        for column in range(width):
            token: list[float] = []
            for plane, halved in zip(planes, (False, chroma == "420", chroma == "420"), strict=True):
                for down, right in [(0, 0)] if halved else [(0, 0), (0, 1), (1, 0), (1, 1)]:
                    top, left = ((row, column) if halved else (2 * row + down, 2 * column + right))
                    cell = plane[top * block : (top + 1) * block, left * block : (left + 1) * block] - 128
                    token += scipy.fft.dctn(cell, norm="ortho").flatten()[order].tolist()
            columns.append(token)
    return np.array(columns).T.reshape(-1, height, width) / eta


def enlarged_by_loops(half: np.ndarray) -> np.ndarray:
    """Twice the size, bilinear between pixel centres, edges repeated: weights 3/4 and 1/4."""
    height, width = half.shape
    whole = np.empty((2 * height, 2 * width))
    for row in range(2 * height):
        for column in range(2 * width):
            up, left = row // 2, column // 2
            other_up = min(max(up + (1 if row % 2 else -1), 0), height - 1)
            other_left = min(max(left + (1 if column % 2 else -1), 0), width - 1)
            whole[row, column] = (9 * half[up, left] + 3 * half[other_up, left] + 3 * half[up, other_left]
                                  + half[other_up, other_left]) / 16
    return whole


def pixels_by_loops(tokens: np.ndarray, block: int, order: list[int], chroma: str, eta: float) -> np.ndarray:
    """uint8 (H, W, 3) of the tokens of one image, truncated as in the released code."""
    _, height, width = tokens.shape
    kept, side = len(order), 2 * block
    counts = (4, 1, 1) if chroma == "420" else (4, 4, 4)
    planes, first = [], 0
    for count in counts:
        plane = np.zeros((height * side, width * side) if count == 4 else (height * block, width * block))
        for row in range(height):
            for column in range(width):
                for number in range(count):
                    start = first + number * kept
                    cell = np.zeros(block**2)
                    cell[order] = np.clip(tokens[start : start + kept, row, column], -2, 2)
                    pixels = scipy.fft.idctn(eta * cell.reshape(block, block), norm="ortho") + 128
                    top = (2 * row + number // 2 if count == 4 else row) * block
                    left = (2 * column + number % 2 if count == 4 else column) * block
                    plane[top : top + block, left : left + block] = pixels
        planes.append(plane if count == 4 else enlarged_by_loops(plane))
        first += count * kept
    luma, blue, red = planes
    rgb = [luma + 1.402 * (red - 128), luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128), luma + 1.772 * (blue - 128)]
    return np.clip(np.stack(rgb, -1), 0, 255).astype(np.uint8)


def grey_levels(decoded: torch.Tensor) -> np.ndarray:
    return ((decoded.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()


CASES = [(2, 4, [0, 1, 2, 3], 242.382), (4, 16, JPEG_4, 480.25), (4, 9, JPEG_4[:9], 480.25), (4, 8, JPEG_4[:8], 485.0)]


@pytest.mark.parametrize("chroma", ["420", "444"])
@pytest.mark.parametrize(("block", "kept", "order", "eta"), CASES)
def test_tokens_and_images_equal_those_by_scipy_and_loops(photographs, images, block, kept, order, eta, chroma):
    tokenizer = open_tokenizer(f"dct:{block}x{kept},chroma={chroma},eta={eta}")
    latents = tokenizer.encode(images).mean
    expected = np.stack([tokens_by_loops(pixels, block, order, chroma, eta) for pixels in photographs])
    assert latents.shape == expected.shape == (2, *tokenizer.latent_shape(*SHAPE))
    np.testing.assert_allclose(latents.numpy(), expected, rtol=0, atol=1e-4)
    back = np.stack([pixels_by_loops(tokens, block, order, chroma, eta) for tokens in expected])
    assert np.abs(grey_levels(tokenizer.decode(latents)) - back).max() < 1.01


def test_generated_latents_are_clipped_to_two_eta():
    tokenizer = open_tokenizer("dct:2x4,eta=100")
    wild = 3 * torch.randn(1, 24, 3, 2, generator=torch.Generator().manual_seed(0))
    expected = pixels_by_loops(wild[0].double().numpy(), 2, [0, 1, 2, 3], "420", 100.0)
    assert np.abs(grey_levels(tokenizer.decode(wild))[0] - expected).max() < 1.01
    assert not torch.equal(tokenizer.decode(wild), tokenizer.decode(wild / 2))
    assert torch.equal(tokenizer.decode(wild), tokenizer.decode(wild.clamp(-2, 2)))


def test_zigzag_of_8_is_jpegs():
    scan = [
        0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
        12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
        35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
        58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    ]  # fmt: skip
    assert zigzag(8) == scan and zigzag(4) == JPEG_4 and zigzag(2) == [0, 1, 2, 3]


def test_444_with_all_coefficients_loses_nothing(images):
    tokenizer = open_tokenizer("dct:8x64,chroma=444")
    assert_close(tokenizer.decode(tokenizer.encode(images[..., :48, :]).mean), images[..., :48, :], rtol=0, atol=1e-5)


def test_losses_are_told_apart(images):
    whole = round_trip_losses(dct("dct:4x16,chroma=444"), images)
    assert whole == {"chroma": None, "coefficients": None, "clip": None, "all": None}
    only_chroma = round_trip_losses(dct("dct:4x16"), images)
    assert only_chroma["coefficients"] is None and only_chroma["clip"] is None
    assert only_chroma["chroma"] == pytest.approx(only_chroma["all"], abs=1e-6)
    both, small = round_trip_losses(dct("dct:4x8"), images), round_trip_losses(dct("dct:4x16,eta=150"), images)
    assert both["all"] < both["coefficients"] and both["all"] < both["chroma"] == pytest.approx(only_chroma["chroma"], abs=1e-6)
    assert small["clip"] < 90 and small["all"] < small["clip"]


def test_coefficient_loss_is_the_energy_that_is_dropped(images):
    """4:4:4 and luma only: a gray image loses exactly the energy of its dropped coefficients (Parseval)."""
    gray = images.mean(1, keepdim=True).expand(-1, 3, -1, -1).double()
    blocks = gray[:, 0].unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).transpose(2, 3).numpy()
    dropped = scipy.fft.dctn(blocks, axes=(-2, -1), norm="ortho").reshape(2, 16, 24, 16)[..., JPEG_4[9:]]
    expected = 10 * np.log10(4 / ((dropped**2).sum((1, 2, 3)) / (SHAPE[0] * SHAPE[1])))
    assert round_trip_losses(dct("dct:4x9"), gray)["coefficients"] == pytest.approx(expected.mean(), abs=0.02)   # 0.02: clamped


def test_eta_is_the_percentile_of_luma_dc(photographs, images):
    dc = [scipy.fft.dctn(planes_of(pixels, "420")[0][row : row + 2, column : column + 2] - 128, norm="ortho")[0, 0]
          for pixels in photographs for row in range(0, 64, 2) for column in range(0, 96, 2)]
    expected = np.abs(np.percentile(dc, [1.75, 98.25])).max()
    assert measured_eta_of(luma_dc(images, 2)) == pytest.approx(expected, abs=2e-3)


def test_names_state_eta_and_where_it_comes_from():
    assert "24 channels: 4 of 4" in open_tokenizer("dct:2x4").architecture
    assert "eta 256 (128 times the block side, the default: not measured)" in open_tokenizer("dct:2x4").architecture
    assert "eta 480.25 (published for ffhq128)" in open_tokenizer("dct:4x9,eta=ffhq128").architecture
    assert "eta 200 (given)" in open_tokenizer("dct:2x3,chroma=444,eta=200").architecture
    assert open_tokenizer("dct:2x3,chroma=444").latent_channels == 36
    assert dct("dct:2x4,eta=measured", measured=243.0).name == "dct:2x4,eta=243"
    assert needs_measured_eta("dct:2x4,eta=measured") and not needs_measured_eta("dct:2x4") and not needs_measured_eta("pixels")


def test_digest_depends_on_numbers_only():
    named, given = open_tokenizer("dct:2x4,eta=cifar10"), open_tokenizer("dct:2x4,chroma=420,eta=242.382")
    others = [open_tokenizer(name) for name in ("dct:2x4", "dct:2x3,eta=242.382", "dct:2x4,chroma=444,eta=242.382")]
    assert named.digest == given.digest and len({given.digest, *(other.digest for other in others)}) == 4


def test_a_stale_eta_is_named_beside_the_measured_one():
    said = stale_eta(dct("dct:2x4,eta=200"), 242.382, "data/cifar10")
    assert said is not None and "eta 200 of" in said and "data/cifar10, 242.382" in said
    assert stale_eta(dct("dct:2x4,eta=242"), 242.382, "data/cifar10") is None
    assert stale_eta(dct("dct:2x4"), 200.0, "data/cifar10") is None


def test_published_sets_are_possible_tokenizers():
    for name, published in PUBLISHED.items():
        made = dct(f"dct:{published.block}x{published.kept},eta={name}")
        assert made.eta == published.eta and len(published.luma) == published.block**2


@pytest.mark.parametrize(("name", "says"), [
    ("dct:2", "is no DCT tokenizer"),
    ("dct:2x5", "a block of 2x2 has 4 coefficients, not 5"),
    ("dct:2x0", "kept: Input should be greater than or equal to 1"),
    ("dct:3x4", "the block side must be one of 2, 4, 8, 16, 32, but is 3"),
    ("dct:2x4,chroma=422", "chroma is '422', but must be 420 or 444"),
    ("dct:2x4,eta=-1", "eta: Input should be greater than 0"),
    ("dct:2x4,eta=nan", "eta: Input should be a"),
    ("dct:2x4,eta=big", "eta is 'big', but must be a positive number, measured, or one of cifar10"),
    ("dct:2x4,eta=ffhq128", "the published eta of ffhq128 is for blocks of 4, not 2"),
    ("dct:2x4,eta=measured", "eta is measured by `prepare --latents`, `train-dit` and `race` only"),
    ("dct:2x4,padding=reflect", "there is no setting 'padding=reflect'"),
])  # fmt: skip
def test_an_impossible_name_is_refused_in_one_sentence(name, says):
    assert identify(name).kind == "dct"
    with pytest.raises(RecipeError, match=says.replace("(", r"\(")) as caught:
        open_tokenizer(name)
    assert "\n" not in caught.value.message


def test_sides_that_macro_blocks_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="both sides must be multiples of 8, such as 24x32"):
        open_tokenizer("dct:4x9").encode(torch.zeros(1, 3, 28, 32))


def test_a_description_survives_storage():
    made = open_tokenizer("dct:4x9,eta=ffhq128")
    assert DCT.model_validate(made.config.model_dump(mode="json")) == made.config
