import re

import matplotlib
import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from smtool.diffusability.inputs.subjects import Subject
from smtool.diffusability.sections import low_pass
from smtool.diffusability.sections.low_pass import SHOWN_ROWS
from smtool.diffusability.sections.pictures import LINE, NOISE_TIMES, TILE, chosen_places, visualize, visualize_images
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import point_posterior
from smtool.spectrum.units import Units
from smtool.tokenizers import Tokenizer, open_tokenizer
from smtool.tokenizers.functions import FunctionTokenizer

STATS = LatentStats("scalar", torch.zeros(1), torch.ones(1), 1, "")


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


def drawn(codec: Tokenizer, images: Tensor) -> dict:
    latents, subject = codec.encode(images).mode(), Subject("it", codec)
    base = subject.reconstruct(latents)
    shown = low_pass.measure(subject, images, latents, base, Units("image", ["a", "b", "c"])).shown
    return visualize(images, latents, STATS, base, low_passed=shown)


def tile(picture: Tensor, row: int, column: int, side: int) -> Tensor:
    return picture[:, row * (side + LINE):][:, :side, column * (side + LINE):][..., :side]


def level(x: Tensor) -> Tensor:
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte()


def test_a_codec_with_a_decoder_has_all_pictures_and_an_encoder_alone_those_of_its_latents(images):
    codec = open_tokenizer("control:bilinear")
    assert list(drawn(codec, images)) == ["reconstructions", "low-pass", "latents-pca", "token-similarity"]
    alone = FunctionTokenizer(
        codec.encode, None, network=None, label="alone", source="", architecture="", digest="", downsample=8, latent_channels=3
    )
    made = drawn(alone, images)
    assert list(made) == ["latents-pca", "token-similarity"]
    for picture in made.values():
        assert picture.image.dtype == torch.uint8 and picture.image.shape[0] == 3 and picture.caption


def test_latents_of_two_channels_have_no_picture_in_three_colours(images):
    codec = FunctionTokenizer(
        lambda x: point_posterior(x[:, :2, ::8, ::8]), None, network=None, label="two", source="", architecture="", digest="",
        downsample=8, latent_channels=2,
    )
    assert list(drawn(codec, images)) == ["token-similarity"]


def test_reconstructions_are_below_their_inputs_with_twice_the_difference(images):
    codec = open_tokenizer("control:bilinear")
    picture = drawn(codec, images)["reconstructions"].image
    side = 64 * 3
    assert picture.shape == (3, 3 * side + 2 * LINE, 3 * side + 2 * LINE)
    answer = codec.decode(codec.encode(images).mode())
    for row, expected in enumerate((images[1], answer[1], 2 * (answer[1] - images[1]))):
        torch.testing.assert_close(tile(picture, row, 1, side)[:, ::3, ::3], level(expected), rtol=0, atol=1)


def test_the_low_pass_strip_has_a_column_for_each_removal(images):
    picture = drawn(open_tokenizer("control:crop"), images)["low-pass"].image
    side = 64 * 3
    assert picture.shape == (3, 4 * side + 3 * LINE, len(SHOWN_ROWS) * side + (len(SHOWN_ROWS) - 1) * LINE)
    torch.testing.assert_close(tile(picture, 0, 0, side)[:, ::3, ::3], level(images[0]), rtol=0, atol=1)
    means = tile(picture, 2, len(SHOWN_ROWS) - 1, side)[:, ::3, ::3]      # n = 14 leaves the mean of every 8x8 block
    blocks = images[1].reshape(3, 8, 8, 8, 8).mean((2, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    torch.testing.assert_close(means, level(blocks), rtol=0, atol=1)


def test_the_similarity_maps_are_cosines_with_the_framed_token(images):
    """One direction on the left, its opposite on the right; both filters keep the signs."""
    half = torch.ones(1, 3, 64, 64)
    half[..., 32:] = -1
    half = half + 0.05 * images[:1]
    codec = open_tokenizer("control:space-to-depth")
    picture = visualize(half, codec.encode(half).mode(), STATS, None)["token-similarity"].image
    side = max(TILE, 64)
    yellow, blue = (torch.tensor([round(255 * c) for c in matplotlib.colormaps["viridis"](end)[:3]]) for end in (1.0, 0.0))
    is_left = chosen_places(half)[0][1] < 0.5
    for view in (1, 2):
        seen = tile(picture, 0, view, side).double()
        like, unlike = (seen[:, 2:6, 2:6], seen[:, 2:6, -6:-2]) if is_left else (seen[:, 2:6, -6:-2], seen[:, 2:6, 2:6])
        assert (like.mean((1, 2)) - yellow).abs().max() < 25
        assert (unlike.mean((1, 2)) - blue).abs().max() < 25


def test_places_are_of_different_colour_and_depend_on_the_image_alone():
    image = torch.zeros(1, 3, 64, 64)
    image[..., 16:24, 40:48] = torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1)
    image[..., 48:56, 8:16] = torch.tensor([-1.0, -1.0, 1.0]).view(3, 1, 1)
    assert set(chosen_places(image)[1:]) == {(2.5 / 8, 5.5 / 8), (6.5 / 8, 1.5 / 8)}


def test_masks_are_above_their_low_passed_images_and_only_drawn_where_blocks_fill_the_image(images):
    made = visualize_images(images)
    assert list(made) == ["magnitude-normalised", "noised", "masks"]
    masks = made["masks"].image
    side = max(TILE, 64)
    for column, rows in enumerate(SHOWN_ROWS):
        cells = tile(masks, 0, column, side)[0, side // 16::side // 8, side // 16::side // 8]
        kept = torch.tensor([[u + v < 15 - rows for v in range(8)] for u in range(8)])
        assert ((cells > 128) == kept).all()
    assert list(visualize_images(images[..., :60])) == ["magnitude-normalised", "noised"]


def test_noised_images_are_above_their_low_passed_copies(rng):
    """Three photographs of one spectrum f^-2, so that f* = sqrt(R K); the low-pass is compared with scipy's DCT."""
    u, v = np.meshgrid(*[np.arange(64) / 2] * 2, indexing="ij")
    radius = np.hypot(u, v)
    radius[0, 0] = np.inf
    fields = scipy.fft.idctn(rng.standard_normal((3, 1, 64, 64)) / radius, axes=(-2, -1), norm="ortho")
    images = torch.from_numpy(0.25 * fields / fields.std()).float().expand(-1, 3, -1, -1)
    made = visualize_images(images)["noised"]
    side = 64 * 3
    last = len(NOISE_TIMES)
    assert made.image.shape == (3, 4 * side + 3 * LINE, (last + 1) * side + last * LINE)
    whole = tile(made.image, 0, last, side)
    assert torch.equal(whole, tile(made.image, 1, last, side))
    (chosen,) = [x for x in images if torch.equal(level(x), whole[:, ::3, ::3])]
    limits = [float(word) for word in re.findall(r"images: (.*) cycles", made.caption)[0].split(", ")[2:]]
    level_k = float((1 / images.numpy().std() ** 2) * (scipy.fft.dctn(images[:, 0].numpy(), axes=(-2, -1), norm="ortho") ** 2
                                                       * np.where(np.isfinite(radius), radius, 0) ** 2)[:, 1:, 1:].mean())
    for column, (t, limit) in enumerate(zip(NOISE_TIMES, [None, None, *limits], strict=True)):
        if limit is None or limit > 25:      # near the last ring the rings' means bend
            continue
        assert limit == pytest.approx((1 - t) / t * level_k**0.5, rel=0.2)
        cells = scipy.fft.dctn(chosen.numpy(), axes=(-2, -1), norm="ortho")
        cells[:, (np.where(np.isfinite(radius), radius, 0) > limit)] = 0
        expected = torch.from_numpy(scipy.fft.idctn(cells, axes=(-2, -1), norm="ortho"))
        low = tile(made.image, 1, column, side)[:, ::3, ::3].int() - level(expected).int()
        assert low.abs().float().mean() < 2      # the caption rounds f* to two digits
    noisy = [tile(made.image, 0, column, side)[:, ::3, ::3].float() for column in range(last)]
    distances = [(one - whole[:, ::3, ::3]).square().mean().item() for one in noisy]
    assert distances == sorted(distances, reverse=True) and distances[-1] < distances[0] / 10


def test_images_of_one_colour_and_tiny_ones_have_no_noised_picture(images):
    assert "noised" not in visualize_images(torch.zeros(2, 3, 64, 64))
    assert "noised" not in visualize_images(images[..., :4, :4])


def test_tokens_at_right_angles_have_the_middle_colour():
    halves = torch.zeros(1, 3, 64, 64)
    halves[:, 0, :, :32], halves[:, 1, :, 32:] = 0.5, 0.5
    codec = open_tokenizer("control:space-to-depth")
    picture = visualize(halves, codec.encode(halves).mode(), STATS, None)["token-similarity"].image
    seen = tile(picture, 0, 1, max(TILE, 64))
    ends = {tuple(seen[:, 3, column].tolist()) for column in (3, -4)}
    assert ends == {tuple(round(255 * c) for c in matplotlib.colormaps["viridis"](level)[:3]) for level in (128, 255)}
