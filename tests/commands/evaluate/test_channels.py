"""Scores of grey images, images with alpha, and rectangles, against scikit-image and Pillow."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from smtool.checkpoints import write_autoencoder
from smtool.commands.evaluate.evaluation import evaluate
from smtool.commands.prepare.images import prepare
from smtool.commands.sample.files import write_npz
from smtool.data import open_images
from smtool.data.batches import to_uint8
from smtool.errors import DataError
from smtool.evaluation.options import EvalOptions
from smtool.features.load import load_extractor
from smtool.features.pictures import as_rgb
from smtool.image_shape import CHANNELS, ImageSize
from smtool.networks.sd_vae import SDVAE
from smtool.report.console import Console
from smtool.tokenizers import load_autoencoder

HEIGHT, WIDTH, COUNT = 24, 40, 12


def picture(key, mode="RGBA", size=(WIDTH, HEIGHT)):
    """A smooth random image: coarse noise, enlarged."""
    coarse = np.random.default_rng(key).integers(0, 256, (6, 6, 4), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture
def made(tmp_path, monkeypatch, request):
    """A mode, a prepared folder of rectangles in it, and the checkpoint of an untrained autoencoder of its channels."""
    monkeypatch.chdir(tmp_path)
    mode = request.param
    Path("raw").mkdir()
    for number in range(COUNT):
        picture(number, mode).save(f"raw/{number:02d}.png")
    out = prepare("raw", out=None, size=ImageSize(HEIGHT, WIDTH), mode=mode, val_fraction=0.5, workers=1)
    config = SDVAE(downsample=4, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1, image_channels=CHANNELS[mode])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = config.build()
    recipe = {"data": {"train": str(out), "image_size": [HEIGHT, WIDTH], "batch": 4}}
    write_autoencoder(Path("ckpt.safetensors"), autoencoder, {"recipe": recipe, "step": 1, "data": "-"})
    return mode, out, Path("ckpt.safetensors")


def pairs(out, checkpoint):
    """Images and reconstructions, uint8 (N, C, H, W), made without the pass."""
    images = open_images(str(out), "val", image_size=[HEIGHT, WIDTH])
    images = images.read(range(len(images))).images
    autoencoder = load_autoencoder(checkpoint)
    with torch.no_grad():
        return to_uint8(images), to_uint8(autoencoder.decode(autoencoder.encode(images).mean))


def scored(what, **options):
    return evaluate(str(what), EvalOptions(**options), console=Console(quiet=True))


@pytest.mark.parametrize("made", ["L", "LA", "RGB", "RGBA"], indirect=True)
def test_psnr_and_ssim_are_those_of_scikit_image_over_the_images_own_channels(made):
    mode, out, checkpoint = made
    result = scored(checkpoint, scores={"psnr", "ssim"}, features=["random"])
    x, y = ([image.permute(1, 2, 0).numpy() for image in side] for side in pairs(out, checkpoint))
    options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    psnr = np.mean([peak_signal_noise_ratio(*pair) for pair in zip(x, y, strict=True)])
    ssim = np.mean([structural_similarity(*pair, **options) for pair in zip(x, y, strict=True)])
    assert result.scores["psnr"].value == pytest.approx(psnr, rel=1e-5)
    assert result.scores["ssim"].value == pytest.approx(ssim, abs=1e-5)
    channels = {name: score.passport.channels for name, score in result.scores.items()}
    own, seen = {
        "L": ("over 1 channel", "grey repeated to three channels"),
        "LA": ("over 2 channels", "alpha composited on grey, grey repeated to three channels"),
        "RGB": ("RGB", "RGB"),
        "RGBA": ("over 4 channels", "alpha composited on grey"),
    }[mode]
    assert channels == {"psnr": own, "ssim": own, "fd_random": seen}
    assert result.scores["psnr"].passport.image_sizes == f"{HEIGHT}x{WIDTH}"


@pytest.mark.parametrize("made", ["L", "RGBA"], indirect=True)
def test_frechet_distances_are_those_of_three_channels(made, frechet):
    _, out, checkpoint = made
    x, y = pairs(out, checkpoint)
    extractor = load_extractor("random")
    first, second = (extractor(as_rgb(images)).double().numpy() for images in (x, y))
    assert scored(checkpoint, features=["random"]).scores["fd_random"].value == pytest.approx(frechet(first, second), rel=1e-3)


@pytest.mark.parametrize("made", ["L", "RGBA"], indirect=True)
def test_the_paper_protocol_codes_grey_as_jpeg_and_alpha_after_compositing(made):
    mode, _, checkpoint = made
    passports = {name: score.passport for name, score in scored(checkpoint, protocol="paper").scores.items()}
    composited = "alpha composited on grey"      # JPEG has no alpha
    assert passports["psnr"].channels == ("over 1 channel" if mode == "L" else composited)
    assert passports["ssim"].channels == ("over 1 channel" if mode == "L" else "over 4 channels")


@pytest.mark.parametrize("made", ["RGBA"], indirect=True)
def test_a_reference_of_other_size_and_channels_is_named_in_the_passport(made, screen):
    console, shown = screen
    _, _, checkpoint = made
    other = prepare("raw", out=Path("other"), size=ImageSize(16, 16), mode="L", val_fraction=0.5, workers=1)
    result = evaluate(str(checkpoint), EvalOptions(features=["random"], reference=str(other)), console=console)
    passport = result.scores["fd_random"].passport
    assert (passport.image_sizes, passport.reference_sizes) == (f"{HEIGHT}x{WIDTH}", "16x16")
    assert passport.channels == "images: alpha composited on grey; reference: grey repeated to three channels"
    assert passport.warning in " ".join(shown().split()) and "images are not resized" in passport.warning
    one = prepare("raw", out=Path("one"), size=ImageSize(16, 16), mode="L", val_fraction=1 / COUNT, workers=1)
    with pytest.raises(DataError, match="one: a Frechet distance needs at least 2 images, found 1"):
        scored(checkpoint, features=["random"], reference=str(one))


def samples(channels, count=COUNT):
    mode = {1: "L", 2: "LA", 4: "RGBA"}[channels]
    return np.stack([np.asarray(picture(100 + key, mode)).reshape(HEIGHT, WIDTH, -1) for key in range(count)])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_samples_of_other_channels_get_the_scores_of_their_three_channels(channels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = samples(channels)
    write_npz(Path("own.npz"), pixels, None)
    rgb = as_rgb(torch.from_numpy(pixels).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    write_npz(Path("rgb.npz"), rgb, None)
    write_npz(Path("real.npz"), samples(4)[..., :3][::-1].copy(), None)
    own, expected = (scored(f"{name}.npz", reference="real.npz") for name in ("own", "rgb"))
    assert {name: score.value for name, score in own.scores.items()} == {
        name: pytest.approx(score.value, rel=1e-9) for name, score in expected.scores.items()
    }
    assert own.scores["fd_random"].passport.channels.startswith("images: ")
    assert expected.scores["fd_random"].passport.channels == "RGB"


def test_alpha_of_samples_and_of_loose_references_is_composited_in_the_same_way(tmp_path, monkeypatch):
    """The same images on both sides have no distance, whichever side is loose."""
    monkeypatch.chdir(tmp_path)
    pixels = samples(4)
    write_npz(Path("own.npz"), pixels, None)
    Path("loose").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(f"loose/{number:02d}.png")
    for what, reference in (("own.npz", "loose"), ("loose", "own.npz")):
        result = scored(what, reference=reference)
        assert result.scores["fd_random"].value == pytest.approx(0, abs=1e-6)
        assert result.scores["fd_random"].passport.channels == "alpha composited on grey"
        assert not result.samples.remarks and not result.reference.remarks
    alone = scored("loose", reference="loose")
    assert alone.samples.remarks == {"alpha, composited on white": COUNT}
    assert alone.scores["fd_random"].passport.channels == "RGB"
