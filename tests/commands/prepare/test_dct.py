"""`prepare --latents dct:...`: eta, entropies and losses in the card; the fewest coefficients, against another computation."""

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image

from smtool.commands.inspect.inspection import describe
from smtool.commands.prepare.coefficients import fewest_within, judge_cache, tried_numbers
from smtool.commands.prepare.images import prepare
from smtool.commands.prepare.latents import dct_lines, prepare_latents
from smtool.data import open_images, open_latents
from smtool.data.batches import to_uint8
from smtool.data.latents.card import read_latent_card
from smtool.features.load import load_extractor
from smtool.tokenizers import open_tokenizer

SOURCE = "builtin:photos?train=24&val=4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dct")
    prepare(SOURCE, out=folder / "photos", size=32, workers=1)
    return folder


@pytest.fixture(scope="module")
def pixels(folder) -> np.ndarray:
    """(24, 32, 32, 3) uint8."""
    images = open_images(str(folder / "photos"), "train", image_size=32)
    return to_uint8(images.read(range(24)).images).permute(0, 2, 3, 1).numpy()


def luma_blocks(pixels: np.ndarray) -> np.ndarray:
    """(number of 2x2 blocks, 2, 2), 128 subtracted."""
    luma = pixels.astype(float) @ [0.299, 0.587, 0.114] - 128
    return luma.reshape(len(luma), 16, 2, 16, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 2, 2)


def test_eta_and_entropies_of_the_card_equal_numpys(folder, pixels):
    made = prepare_latents("dct:2x3,eta=measured", data=str(folder / "photos"), out=folder / "measured", dtype="fp32", workers=1)
    card = read_latent_card(made)
    blocks = luma_blocks(pixels)
    dc = blocks.sum((1, 2)) / 2
    eta = np.abs(np.percentile(dc, [1.75, 98.25])).max()
    assert card.dct is not None and card.dct.eta == pytest.approx(eta, abs=2e-3)
    assert card.checkpoint == f"dct:2x3,eta={card.dct.eta:.9g}" and (card.dct.eta_images, card.dct.entropy_images) == (24, 24)
    first, second = blocks[:, 0], blocks[:, 1]
    coefficients = [dc, (first[:, 0] - first[:, 1] + second[:, 0] - second[:, 1]) / 2, (first.sum(1) - second.sum(1)) / 2]
    expected = []
    for values in (one / card.dct.eta for one in coefficients):
        low, high = np.percentile(values, [1.75, 98.25])
        counts, _ = np.histogram(values[(values > low) & (values < high)], bins=100, range=(-1, 1))
        share = counts / counts.sum()
        expected.append(-(share * np.log2(share + 1e-9)).sum())
    assert card.dct.entropy.luma[:3] == pytest.approx(expected, abs=0.01) and len(card.dct.entropy.luma) == 4
    assert card.dct.weights.luma == pytest.approx([value / np.mean(expected) for value in expected], abs=0.01)
    assert len(card.dct.weights.blue) == 3 and np.mean(card.dct.weights.red) == pytest.approx(1, abs=1e-6)
    opened = open_latents(made, autoencoder=open_tokenizer(card.checkpoint).digest, data=card.data)
    assert opened.latent_shape == (18, 8, 8)


def test_the_card_is_described_and_a_given_eta_that_is_stale_is_named(folder):
    made = prepare_latents("dct:2x4,eta=120", data=str(folder / "photos"), out=folder / "stale", workers=1)
    card = read_latent_card(made)
    lines = dct_lines(card)
    assert card.dct is not None and card.dct.losses["coefficients"] is None and card.dct.losses["chroma"] is not None
    assert any(line.startswith(f"eta 120 of dct:2x4,eta=120 (given) is not that of {folder / 'photos'}") for line in lines)
    assert "coefficients none" in describe(str(made)).rows["measured"]


def test_the_fewest_coefficients_follow_from_distances_to_the_images(folder, pixels):
    asked = {"data": str(folder / "photos"), "out": folder / "judged", "workers": 1}
    made = prepare_latents("dct:4x16,chroma=444,eta=measured", **asked)
    card = judge_cache(made, "random")
    assert card == read_latent_card(made)
    found = card.dct.fewest_coefficients
    assert found.kept == tuple(range(1, 17)) and found.images == 12 and found.judge == "fd_random"
    assert found.distances[-1] < 1e-3 and found.distances[0] > 100 * found.distances[12]
    extractor = load_extractor("random")
    tokenizer = open_tokenizer(f"dct:4x2,chroma=444,eta={card.dct.eta}")
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)[:12]
    back = to_uint8(tokenizer.decode(tokenizer.encode(images.float() / 127.5 - 1).mean))
    real, ours = (extractor(part).double().numpy() for part in (images, back))
    root = scipy.linalg.sqrtm(np.cov(real.T) @ np.cov(ours.T)).real
    expected = ((real.mean(0) - ours.mean(0)) ** 2).sum() + np.trace(np.cov(real.T) + np.cov(ours.T) - 2 * root)
    assert found.distances[1] == pytest.approx(expected, rel=0.05)
    assert found.distances[found.fewest - 1] <= found.bound < (found.distances[found.fewest - 2] if found.fewest > 1 else np.inf)
    with Image.open(made / "coefficients.png") as picture:
        assert picture.width > 800


def test_halved_chroma_alone_can_exceed_the_bound(folder):
    asked = {"data": str(folder / "photos"), "out": folder / "strict", "workers": 1}
    made = prepare_latents("dct:2x4", **asked)
    said = dct_lines(judge_cache(made, "random", max_fd=0.0))
    assert any("no number of coefficients has fd_random of at most 0 (given): halving chroma" in line for line in said)


def test_which_numbers_are_tried_and_when_the_fewest_stops():
    assert tried_numbers(2) == (1, 2, 3, 4)
    assert tried_numbers(8) == (1, 3, 6, 10, 15, 21, 28, 36, 43, 49, 54, 58, 61, 63, 64)
    assert fewest_within((1, 2, 3, 4), [9.0, 0.1, 2.0, 0.5], 2.0) == 2
    assert fewest_within((1, 2, 3, 4), [0.1, 9.0, 2.0, 0.5], 2.0) == 3
    assert fewest_within((1, 2), [9.0, 3.0], 2.0) is None


@pytest.mark.parametrize(("arguments", "says"), [
    (("--judge", "random"), "--judge has no effect without --latents"),
    (("--latents", "dct:2x4", "--max-fd", "1"), "--max-fd has no effect without --judge"),
    (("--latents", "pixels", "--judge", "random"), "--judge judges the coefficients of dct:BxM, but pixels is another tokenizer"),
    (("--latents", "dct:2x4", "--judge", "nobody"), "there is no feature extractor called 'nobody'"),
])  # fmt: skip
def test_idle_options_are_refused(command, folder, arguments, says):
    code, _, told = command("prepare", str(folder / "photos"), "--out", str(folder / "refused"), *arguments)
    assert code == 2 and says in told and not (folder / "refused").exists()


def test_the_command_prints_the_name_to_train_with(command, folder):
    asked = ("--latents", "dct:2x4,eta=measured", "--judge", "random", "--out", str(folder / "told"), "--workers", "1")
    code, said, _ = command("prepare", str(folder / "photos"), *asked)
    card = read_latent_card(folder / "told")
    assert code == 0 and f"latents.autoencoder of these latents: {card.checkpoint}" in said
    assert card.dct.fewest_coefficients is not None and "fewest coefficients with fd_random of at most" in said
