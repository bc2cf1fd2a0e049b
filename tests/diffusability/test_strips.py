"""Low-passed decodings of two photographs: pictures and paired PSNR, against scipy's DCT and hand-made decoders."""

import math

import numpy as np
import pytest
import scipy.fft
import scipy.stats
import torch

from smtool.commands.quickstart.findings import following_sentence
from smtool.data import open_images
from smtool.diffusability.strips import ROWS_REMOVED, TARGET, Following, measure_following, strips
from smtool.report.plots.strips import strips_figure
from smtool.spectrum.units import Units
from smtool.tokenizers import open_tokenizer


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("images"))
        yield open_images("builtin:photos?train=12&val=24", "val", image_size=64)


@pytest.fixture(scope="module")
def autoencoders():
    return {name: open_tokenizer(name) for name in ("pixels", "control:space-to-depth")}


def low_passed(image, rows):
    """uint8 of an image (3, H, W) in [-1, 1] whose 8x8 blocks lost the last anti-diagonals."""
    kept = np.add.outer(np.arange(8), np.arange(8)) <= 14 - rows
    out = np.zeros(image.shape)
    for top in range(0, image.shape[1], 8):
        for left in range(0, image.shape[2], 8):
            block = (slice(None), slice(top, top + 8), slice(left, left + 8))
            coefficients = scipy.fft.dctn(image[block], axes=(1, 2), norm="ortho")
            out[block] = scipy.fft.idctn(coefficients * kept, axes=(1, 2), norm="ortho")
    return np.clip(np.rint((out + 1) * 127.5), 0, 255)


def test_the_first_row_is_the_image_without_its_high_frequencies(images, autoencoders):
    blocks = strips(autoencoders, images)
    assert len(blocks) == 2
    image = images.read([images.groups.index("coffee")]).images[0].double().numpy()
    for picture, rows in zip(blocks[0].rows[TARGET], ROWS_REMOVED, strict=True):
        assert np.abs(picture.numpy() - low_passed(image, rows)).max() <= 1      # rounding of halves


def test_a_decoder_that_does_nothing_follows_exactly(images, autoencoders):
    block = strips(autoencoders, images)[0]
    assert torch.equal(block.rows["pixels"], block.rows[TARGET])
    assert all(float(note.split()[0]) > 100 for note in block.notes["pixels"])
    assert not torch.equal(block.rows["control:space-to-depth"], block.rows[TARGET])


def test_changes_are_paired_and_their_interval_is_students(images, autoencoders):
    units = Units("photograph", ["a", "a", "b", "c"])
    plain = torch.tensor([[30.0, 20], [28, 22], [25, 20], [26, 24]])
    dsm = torch.tensor([[28.0, 26], [26, 26], [24, 22], [24, 24]])
    following = Following({"plain": plain, "dsm": dsm}, units)
    by_photograph = np.array([((20 - 30) + (22 - 28)) / 2, 20 - 25, 24 - 26])
    paired = np.array([((26 - 28) + (26 - 26)) / 2, 22 - 24, 24 - 24]) - by_photograph
    half = scipy.stats.t.ppf(0.975, 2) * paired.std(ddof=1) / math.sqrt(3)
    assert following.change("plain")[0] == pytest.approx(by_photograph.mean())
    assert following.difference("dsm", "plain") == pytest.approx((paired.mean(), half))


def test_measured_over_all_crops_by_photograph(images, autoencoders):
    found = measure_following(autoencoders, images)
    assert found.psnr["pixels"].shape == (24, len(ROWS_REMOVED))
    assert (found.units.name, len(found.units)) == ("photograph", 12)


@pytest.mark.parametrize(("gain", "said"), [
    (3.0, "The decoder of dsm follows the removal better"),
    (-3.0, "The decoder of plain follows the removal better"),
    (0.0, "do not show which"),
])
def test_the_sentence_follows_from_the_interval(gain, said):
    rows = torch.tensor([[25.0, 20.0], [25, 21], [25, 22], [25, 20]])
    other = rows + torch.tensor([[0, gain + shift] for shift in (0.1, -0.1, 0.2, -0.2)])
    assert said in following_sentence(Following({"plain": rows, "dsm": other}, Units("image", list("abcd"))), "plain", "dsm")


def test_every_row_and_column_is_labelled(images, autoencoders):
    figure = strips_figure(strips(autoencoders, images), [f"n = {rows}" for rows in ROWS_REMOVED])
    texts = [text.get_text() for text in figure.texts]
    assert len(figure.axes) == 2 * 3 * len(ROWS_REMOVED)
    assert {TARGET, *autoencoders} <= set(texts)
    assert sum(text.endswith(" dB") for text in texts) == 2 * 2 * len(ROWS_REMOVED)
    assert [axes.get_title() for axes in figure.axes[:4]].count("n = 12") == 1
