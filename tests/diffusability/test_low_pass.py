import math

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from smtool.diffusability.inputs.subjects import Subject
from smtool.diffusability.sections import low_pass
from smtool.diffusability.sections.low_pass import SHOWN_ROWS
from smtool.diffusability.sections.parts import Reason
from smtool.features.load import load_extractor
from smtool.networks.tokenizer import point_posterior
from smtool.spectrum.units import Units
from smtool.tokenizers import Tokenizer
from smtool.tokenizers.functions import FunctionTokenizer


def codec_of(decode, *, downsample: int = 2) -> Tokenizer:
    """A codec whose latents are every second pixel, with the given decoder; `decoded` holds its batch sizes."""
    seen = []

    def counted(latents: Tensor) -> Tensor:
        seen.append(len(latents))
        return decode(latents)

    codec = FunctionTokenizer(
        lambda images: point_posterior(images[..., ::downsample, ::downsample]), counted, network=None, label="test",
        source="test", architecture="", digest="", downsample=downsample, latent_channels=3, deterministic=True,
    )
    codec.decoded = seen
    return codec


def units_of(count: int) -> Units:
    return Units("image", [str(i) for i in range(count)])


def measured(codec: Tokenizer, images: Tensor, units: Units | None = None):
    latents, subject = codec.encode(images).mode(), Subject("it", codec)
    return low_pass.measure(subject, images, latents, subject.reconstruct(latents), units or units_of(len(images)))


def enlarge(z: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(z, scale_factor=2, mode="nearest")


def removed(x: np.ndarray, rows: int) -> np.ndarray:
    """LP_n as a plain loop over 8x8 tiles."""
    out = np.empty_like(x)
    for top in range(0, x.shape[-2], 8):
        for left in range(0, x.shape[-1], 8):
            cells = scipy.fft.dctn(x[..., top:top + 8, left:left + 8], axes=(-2, -1), norm="ortho")
            for u in range(8):
                for v in range(8):
                    if u + v >= 15 - rows:
                        cells[..., u, v] = 0
            out[..., top:top + 8, left:left + 8] = scipy.fft.idctn(cells, axes=(-2, -1), norm="ortho")
    return out


def psnr(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 10 * np.log10(4 / ((x - y) ** 2).mean((1, 2, 3)))


def levels(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8))


def paired_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The distance over pairs of different images, as a double loop."""

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    pairs = [
        kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(y[i], x[j])
        for i in range(len(x)) for j in range(len(x)) if i != j
    ]
    return float(np.mean(pairs))


@pytest.fixture
def photos(rng) -> Tensor:
    return torch.from_numpy(rng.uniform(-0.8, 0.8, (4, 3, 16, 16)))


def test_the_curve_is_that_of_a_plain_loop_and_its_gap_has_students_interval(photos):
    section = measured(codec_of(enlarge), photos).section
    images, latents = photos.numpy(), photos[:, :, ::2, ::2].numpy()
    whole = latents.repeat(2, -1).repeat(2, -2)
    for rows in (0, 1, 8, 14):
        low = removed(latents, rows).repeat(2, -1).repeat(2, -2)
        assert section.psnr[rows] == pytest.approx(psnr(low, removed(images, rows)).mean(), abs=1e-4)
        assert section.control[rows] == pytest.approx(psnr(whole, removed(images, rows)).mean(), abs=1e-4)
        gap = psnr(whole, images) - psnr(low, removed(images, rows))
        assert section.gap.value[rows] == pytest.approx(gap.mean(), abs=1e-4)
        assert section.gap.half_width[rows] == pytest.approx(3.182446 * gap.std(ddof=1) / 2, abs=1e-4)


def test_the_kernel_distance_is_a_double_loop_over_pairs_of_different_images(photos):
    section = measured(codec_of(enlarge), photos).section.kernel_distance
    images, latents = photos.numpy(), photos[:, :, ::2, ::2].numpy()
    extractor = load_extractor("random")
    for rows in (0, 10):
        answer = extractor(levels(removed(latents, rows).repeat(2, -1).repeat(2, -2))).double().numpy()
        target = extractor(levels(removed(images, rows))).double().numpy()
        assert section.value[rows] == pytest.approx(paired_distance(answer, target), rel=1e-3)
        without = np.array([paired_distance(np.delete(answer, i, 0), np.delete(target, i, 0)) for i in range(4)])
        error = math.sqrt(3 / 4 * ((without - without.mean()) ** 2).sum())
        assert section.half_width[rows] == pytest.approx(3.182446 * error, rel=1e-3)
    assert section.features == "random"


def test_a_decoder_that_follows_every_removal_has_no_gap(photos):
    found = measured(codec_of(lambda z: z + 0.1, downsample=1), photos).section
    np.testing.assert_allclose(found.psnr, 10 * math.log10(4 / 0.01), atol=1e-3)
    np.testing.assert_allclose(found.gap.value, 0, atol=1e-3)
    assert found.control[14] < found.control[0]      # ignoring the removal lowers the PSNR


def test_a_lossless_copy_has_the_limit_of_60_db_no_gap_and_no_kernel_distance(photos):
    found = measured(codec_of(lambda z: z, downsample=1), photos).section
    assert found.psnr == [60.0] * 15      # the limit: the true PSNR is infinite, or that of rounding
    assert found.gap.value == [0.0] * 15
    np.testing.assert_allclose(found.kernel_distance.value, 0, atol=1e-6)


def test_a_curve_takes_exactly_fifteen_decodings_an_image(photos):
    codec = codec_of(enlarge)
    measured(codec, photos)
    assert sum(codec.decoded) == 15 * len(photos)


def test_the_shown_decodings_are_the_low_passed_pairs(photos):
    rows, shown = measured(codec_of(enlarge), photos).shown
    assert tuple(rows) == SHOWN_ROWS
    assert shown.shape == (2, 2, len(SHOWN_ROWS), 3, 16, 16)
    column = SHOWN_ROWS.index(12)
    torch.testing.assert_close(shown[1, 0, column], levels(removed(photos.numpy(), 12))[1])
    latents = photos[:, :, ::2, ::2].numpy()
    torch.testing.assert_close(shown[1, 1, column], levels(removed(latents, 12).repeat(2, -1).repeat(2, -2))[1])


def test_crops_of_one_photograph_are_one_unit_of_every_interval(photos):
    units = Units("photograph", ["a", "a", "b", "b"])
    found = measured(codec_of(enlarge), photos, units).section
    alone = measured(codec_of(enlarge), photos).section
    assert found.units == 2
    assert found.gap.value == pytest.approx(alone.gap.value)
    assert found.gap.half_width[12] != pytest.approx(alone.gap.half_width[12], rel=0.01)
    assert found.kernel_distance.half_width is None      # three units are needed for the jackknife of a distance of pairs
    single = measured(codec_of(enlarge), photos, Units("photograph", ["a"] * 4)).section
    assert "at least 2 photographs, found 1" in single.kernel_distance.reason


def test_a_latent_of_4_cells_is_one_block_of_its_own(photos):
    codec = codec_of(lambda z: torch.nn.functional.interpolate(z, scale_factor=4), downsample=4)
    found = measured(codec, photos).section
    assert found.convention == "relative: blocks of 8 pixels and of 4 latent cells; PSNR is limited to 60 dB"
    assert all(math.isfinite(value) for value in found.psnr)


def test_sides_that_blocks_do_not_fill_and_missing_decoders_give_different_reasons():
    images = torch.zeros(2, 3, 24, 24)
    found = measured(codec_of(enlarge), images)
    assert "multiples of 8" in found.section.reason and found.shown is None
    encoder = codec_of(enlarge)
    encoder._decode = None
    assert measured(encoder, images).section == Reason(reason="it has no decoder")
