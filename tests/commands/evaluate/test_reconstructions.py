import io
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn
from torchmetrics.functional.image import structural_similarity_index_measure
from torchvision.models import squeezenet1_1

from smtool.checkpoints import write_autoencoder
from smtool.commands.evaluate.evaluation import evaluate, newest_run
from smtool.commands.evaluate.result import ReconstructionEvaluation
from smtool.commands.prepare.images import prepare
from smtool.data import open_images
from smtool.data.batches import to_uint8
from smtool.data.images.card import read_card
from smtool.errors import CheckpointError, DataError, RecipeError, WeightsError
from smtool.evaluation.options import EvalOptions
from smtool.features import weights
from smtool.features.load import load_extractor
from smtool.features.perceptual import PerceptualDistance
from smtool.image_shape import ImageSize
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import generator
from smtool.report.console import Console
from smtool.storage import file_digest, write_tensors
from smtool.tokenizers import load_autoencoder

SIDE, COUNT = 32, 24
SOURCE = f"builtin:photos?train=8&val={COUNT}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with prepared photographs: 24 validation crops of 12 photographs."""
    folder = tmp_path_factory.mktemp("work")
    open_images(SOURCE, "val", image_size=SIDE, root=folder / "data")
    return folder


@pytest.fixture
def checkpoint(folder, tmp_path, monkeypatch):
    """An untrained autoencoder, 32 px -> 8 x 8, in a checkpoint that names those photographs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(folder / "data")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = tiny().build()
    path = tmp_path / "runs/tiny/ckpt.safetensors"
    write_autoencoder(path, autoencoder, recipe())
    return path


def tiny():
    return SDVAE(downsample=4, latent_channels=4, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1)


def recipe(**tables):
    return {"recipe": {"data": {"train": SOURCE, "image_size": SIDE, "batch": 4}, **tables}, "step": 7, "data": "-"}


def scored(what, **options):
    return evaluate(str(what), EvalOptions(**options), console=Console(quiet=True)).scores


@pytest.fixture
def pictures(checkpoint):
    """Images, posterior modes and reconstructions of the checkpoint, uint8 (24, 32, 32, 3), made without the pass."""
    images = open_images(SOURCE, "val", image_size=SIDE).read(range(COUNT)).images
    autoencoder = load_autoencoder(checkpoint)
    with torch.no_grad():
        decoded = autoencoder.decode(autoencoder.encode(images).mean)
    return tuple(to_uint8(x).permute(0, 2, 3, 1).contiguous().numpy() for x in (images, decoded))


def features(images):
    return load_extractor("random")(torch.from_numpy(images).permute(0, 3, 1, 2)).double().numpy()


def test_scores_equal_those_of_other_tools_on_the_same_reconstructions(checkpoint, pictures):
    found = scored(checkpoint, scores={"psnr", "ssim"}, batch=7)
    pairs = list(zip(*pictures, strict=True))
    options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert found["psnr"].value == pytest.approx(np.mean([peak_signal_noise_ratio(x, y) for x, y in pairs]), rel=1e-5)
    assert found["ssim"].value == pytest.approx(np.mean([structural_similarity(x, y, **options) for x, y in pairs]), abs=1e-5)
    assert set(found) == {"psnr", "ssim"}


def test_the_frechet_distance_is_that_of_images_and_reconstructions(checkpoint, pictures, tmp_path, monkeypatch, frechet):
    class Means(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) / 255

    script(Means(), tmp_path / "means.pt")
    found = scored(checkpoint, features=[str(tmp_path / "means.pt")])["fd_means"]
    x, y = (images.mean((1, 2)) / 255 for images in pictures)
    assert found.value == pytest.approx(frechet(x, y), rel=1e-4)
    assert found.passport.extractor_sha256 == file_digest(tmp_path / "means.pt")
    assert not any("unreliable" in note for note in found.notes)      # 24 images for 3 features


def test_without_flags_the_newest_run_gets_the_scores_that_need_no_weights(checkpoint, tmp_path, screen):
    other = tmp_path / "runs/older/ckpt.safetensors"
    write_autoencoder(other, tiny().build(), recipe())
    os.utime(other, (1, 1))
    console, shown = screen
    result = evaluate(None, EvalOptions(json_path=tmp_path / "scores.json"), console=console)
    assert list(result.scores) == ["psnr", "ssim", "fd_random"]
    assert result.to_json()["checkpoint"] == {
        "path": "runs/tiny/ckpt.safetensors",
        "sha256": load_autoencoder(checkpoint).digest,
        "step": 7,
    }
    assert ReconstructionEvaluation.model_validate_json((tmp_path / "scores.json").read_text()) == result
    text = shown()
    assert "FD random" in text and "unreliable, 24 images for 64 features" in " ".join(text.split())
    assert newest_run() == checkpoint.relative_to(tmp_path)


def test_the_passport_holds_everything_the_score_depends_on(checkpoint, frechet):
    passport = scored(checkpoint, num_images=9, seed=3)["fd_random"].passport.model_dump()
    digest = open_images(SOURCE, "val", image_size=SIDE).digest
    assert passport == {
        "metric": "frechet distance",
        "extractor": "random",
        "extractor_sha256": load_extractor("random").digest,
        "resize": "none",
        "codec": "none",
        "pixels": "uint8",
        "rounding": "nearest",
        "posterior": "mode",
        "protocol": "clean",
        "num_images": 9,
        "images_sha256": digest,
        "num_reference": 9,
        "reference_sha256": digest,
        "seed": 3,
        "image_sizes": f"{SIDE}x{SIDE}",
        "reference_sizes": f"{SIDE}x{SIDE}",
        "channels": "RGB",
        "warning": "",
    }


def test_crops_of_a_photograph_count_once_in_the_interval(checkpoint, pictures):
    found = scored(checkpoint, scores={"psnr"})["psnr"]
    values = np.array([peak_signal_noise_ratio(x, y) for x, y in zip(*pictures, strict=True)])
    # crop i is of photograph i mod 12, two crops of each: the error is that of 12 means
    names = open_images(SOURCE, "val", image_size=SIDE).groups
    means = np.array([values[np.array(names) == name].mean() for name in dict.fromkeys(names)])
    assert len(means) == 12
    expected = scipy.stats.t.ppf(0.975, 11) * scipy.stats.sem(means)
    assert found.half_width == pytest.approx(expected, rel=0.1)      # 1000 replicates: 2.2 %, at four of them
    assert found.notes == ("interval over 12 photographs, of which the images are crops",)


def test_scores_do_not_depend_on_the_batch(checkpoint):
    one, other = (scored(checkpoint, protocol="paper", batch=batch) for batch in (5, 24))
    for name in one:
        assert one[name].value == pytest.approx(other[name].value, rel=1e-3)      # a grey level may round the other way


def test_the_paper_protocol_samples_latents_and_saves_both_sides_as_jpeg(checkpoint):
    images = open_images(SOURCE, "val", image_size=SIDE).read(range(COUNT)).images
    autoencoder = load_autoencoder(checkpoint)
    noise = torch.stack([torch.randn(4, 8, 8, generator=generator(5, "posterior", i)) for i in range(COUNT)])
    with torch.no_grad():
        posterior = autoencoder.encode(images)
        decoded = autoencoder.decode(posterior.mean + (0.5 * posterior.logvar).exp() * noise)
    values = []
    for x, y in zip(images, decoded, strict=True):
        files = [io.BytesIO(), io.BytesIO()]
        for picture, file in zip((x, y), files, strict=True):
            Image.fromarray(to_uint8(picture).permute(1, 2, 0).numpy()).save(file, "JPEG", quality=75)
        values.append(peak_signal_noise_ratio(*(np.asarray(Image.open(file)) for file in files)))
    found = scored(checkpoint, scores={"psnr"}, protocol="paper", seed=5)["psnr"]
    assert found.value == pytest.approx(np.mean(values), rel=1e-5)
    assert found.passport.codec == "jpeg:75 4:2:0"
    assert found.passport.posterior == "sample"
    assert abs(found.value - scored(checkpoint, scores={"psnr"})["psnr"].value) > 0.01


def test_the_paper_protocol_takes_ssim_and_lpips_of_the_decoders_floats(checkpoint, tmp_path):
    """torchmetrics on floats clamped to [-1, 1], lpips on unclamped floats (released-code.md#evaluation)."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.save(squeezenet1_1(weights=None).state_dict(), tmp_path / "squeezenet1_1_torchvision_fp16.pth")
    autoencoder = load_autoencoder(checkpoint)
    for parameter in autoencoder.decoder.conv_out.parameters():
        parameter.data *= 40      # decodings that leave [-1, 1]
    write_autoencoder(checkpoint, autoencoder, recipe())
    images = open_images(SOURCE, "val", image_size=SIDE).read(range(COUNT)).images
    noise = torch.stack([torch.randn(4, 8, 8, generator=generator(5, "posterior", i)) for i in range(COUNT)])
    distance = PerceptualDistance("squeeze", tmp_path)
    with torch.no_grad():
        decoded = autoencoder.decode(autoencoder.encode(images).sample(noise))
        lpips = distance(decoded, images)
    assert (decoded.abs() > 1).float().mean() > 0.02
    pairs = zip(decoded.split(1), images.split(1), strict=True)
    ssim = [structural_similarity_index_measure(*pair, data_range=(-1.0, 1.0)) for pair in pairs]
    options = {"scores": {"ssim", "lpips_squeeze"}, "seed": 5, "weights_dir": tmp_path}
    found = scored(checkpoint, protocol="paper", **options)
    assert found["ssim"].value == pytest.approx(torch.stack(ssim).mean().item(), abs=1e-5)
    assert found["lpips_squeeze"].value == pytest.approx(lpips.double().mean().item(), rel=1e-4)
    for score in found.values():
        assert (score.passport.pixels, score.passport.rounding, score.passport.codec) == ("float", None, "none")
    assert found["ssim"].passport.metric == "ssim, reflect-padded, in [-1, 1]"
    clean = scored(checkpoint, protocol="clean", **options)
    assert clean["lpips_squeeze"].passport.pixels == clean["ssim"].passport.pixels == "uint8"
    assert all(abs(clean[name].value / found[name].value - 1) > 1e-3 for name in found)


def test_the_adm_protocol_truncates_reconstructions(checkpoint, pictures):
    found = scored(checkpoint, scores={"psnr"}, protocol="adm")["psnr"]
    images = open_images(SOURCE, "val", image_size=SIDE).read(range(COUNT)).images
    autoencoder = load_autoencoder(checkpoint)
    with torch.no_grad():
        decoded = autoencoder.decode(autoencoder.encode(images).mean)
    levels = ((decoded + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    expected = np.mean([peak_signal_noise_ratio(x, y) for x, y in zip(pictures[0], levels, strict=True)])
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.passport.rounding == "truncate"
    assert found.value != pytest.approx(scored(checkpoint, scores={"psnr"})["psnr"].value, rel=1e-5)


def test_other_images_may_be_the_reference_of_frechet_distances(checkpoint, pictures, frechet):
    found = scored(checkpoint, features=["random"], reference="builtin:photos?train=1&val=80")["fd_random"]
    others = open_images("builtin:photos?train=1&val=80", "val", image_size=SIDE)
    x = to_uint8(others.read(range(80)).images).permute(0, 2, 3, 1).contiguous().numpy()
    assert found.value == pytest.approx(frechet(features(x), features(pictures[1])), rel=1e-3)
    assert found.passport.reference_sha256 == others.digest
    assert found.passport.num_reference == 80
    with pytest.raises(DataError, match=r"stats\.npz: an \.npz cannot be the reference of reconstructions"):
        scored(checkpoint, reference="stats.npz")


class PooledLayers(nn.Module):
    """Replaces the network inside the TorchScript Inception: 299 px in, 2048 features out."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 2048, 1)

    def forward(self, x):
        return self.mix(x.mean((2, 3), keepdim=True))


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = PooledLayers()

    def forward(self, x):
        return self.layers(x)


def script(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(module).save(path)


def test_rfid_is_printed_only_with_the_published_weights(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "inception-2015-12-05.pt"
    script(Whole(), path)
    digest = file_digest(path)
    name = f"fd_inception_{digest[:8]}"
    foreign = scored(checkpoint, scores={"fid"}, num_images=4, weights_dir=tmp_path)
    assert list(foreign) == [name]
    as_if = weights.Weights("as if published", (path.name,), 91, "https://example.org", published=(digest,))
    monkeypatch.setitem(weights.WEIGHTS, "inception", as_if)
    published = scored(checkpoint, scores={"fid"}, num_images=4, weights_dir=tmp_path)
    assert list(published) == ["rfid"]
    assert published["rfid"].value == foreign[name].value
    assert published["rfid"].passport.resize == "bicubic-antialias to 299"


def test_missing_inception_weights_are_an_error_before_anything_is_computed(checkpoint, no_network, monkeypatch):
    opened = "smtool.commands.evaluate.reconstructions.open_tokenizer"
    monkeypatch.setattr(opened, lambda *args, **kwargs: pytest.fail("computed something"))
    with pytest.raises(WeightsError, match=r"Inception v3 .* is needed for FID") as caught:
        scored(checkpoint, scores={"fid"})
    assert "91 MB" in str(caught.value) and "--features random" in str(caught.value)


def test_a_score_by_a_network_of_the_loss_has_a_warning(checkpoint, screen):
    path = checkpoint.with_name("lpips.safetensors")
    write_autoencoder(path, load_autoencoder(checkpoint), recipe(perceptual={"net": "squeeze", "weight": 0.5}))
    torch.save(squeezenet1_1(weights=None).state_dict(), path.with_name("squeezenet1_1_torchvision_fp16.pth"))
    console, shown = screen
    options = {"scores": {"psnr", "lpips_squeeze"}, "features": ["squeezenet"], "weights_dir": path.parent}
    result = evaluate(str(path), EvalOptions(num_images=4, **options), console=console)
    assert set(result.warnings) == {"lpips_squeeze", "fd_squeezenet"}
    assert "was in this autoencoder's loss" in shown()
    assert math.isfinite(result.scores["lpips_squeeze"].value)


def test_images_of_data_keep_their_own_size(checkpoint, tmp_path):
    open_images("builtin:photos?train=2&val=6", "val", image_size=40, root=tmp_path / "mine")
    (prepared,) = (tmp_path / "mine").iterdir()
    result = evaluate(str(checkpoint), EvalOptions(scores={"psnr"}, data=str(prepared)), console=Console(quiet=True))
    assert result.images.image_size == ImageSize(40, 40)
    assert result.scores["psnr"].passport.num_images == 6


def test_what_cannot_be_scored_is_an_error_of_one_sentence(checkpoint, tmp_path):
    other = tmp_path / "teacher.safetensors"
    write_tensors(other, {"x": torch.zeros(1)}, {"kind": "teacher"})
    with pytest.raises(CheckpointError, match="holds a file of kind 'teacher', which `eval` cannot score"):
        scored(other)
    write_tensors(other, {"x": torch.zeros(1)}, {"kind": "diffusion"})
    with pytest.raises(CheckpointError, match="has damaged metadata: smtool: Field required"):
        scored(other)
    with pytest.raises(RecipeError, match="sampler options have no effect"):
        scored(checkpoint, changes={"steps": 3})
    silent = tmp_path / "silent.safetensors"
    write_autoencoder(silent, load_autoencoder(checkpoint), {})
    with pytest.raises(CheckpointError, match="does not name images to reconstruct") as caught:
        scored(silent)
    assert "--data" in str(caught.value)
    with pytest.raises(DataError, match="is not prepared, and the checkpoint does not state an image size"):
        scored(silent, data="builtin:photos")
    with pytest.raises(RecipeError, match="no score of reconstructions called 'pnsr'"):
        scored(checkpoint, scores={"pnsr"})
    with pytest.raises(CheckpointError, match="There is no run in nowhere/"):
        newest_run(Path("nowhere"))


def test_the_output_names_the_images_and_says_if_they_were_trained_on(checkpoint, screen, tmp_path):
    whole = prepare(SOURCE.split("?")[0] + "?train=6&val=0", out=tmp_path / "mine", size=SIDE, workers=1)
    write_autoencoder(checkpoint, load_autoencoder(checkpoint), {**recipe(), "data": read_card(whole).split_digest("train")})
    console, shown = screen
    result = evaluate(str(checkpoint), EvalOptions(scores={"psnr"}, data=str(whole)), console=console)
    assert "6 of 6 images of photos" in " ".join(shown().split())
    assert "The autoencoder was trained on these images." in shown()
    assert result.images.trained_on
    result = evaluate(str(checkpoint), EvalOptions(scores={"psnr"}, num_images=8), console=console)
    assert f"8 of {COUNT} validation images of photos" in " ".join(shown().split())
    assert shown().count("trained on") == 1
    assert not result.images.trained_on


def test_an_option_without_effect_is_an_error(checkpoint):
    with pytest.raises(RecipeError, match="--reference has no effect without a Frechet distance"):
        scored(checkpoint, scores={"psnr"}, reference=SOURCE)
    with pytest.raises(DataError, match=f"--num-images 25: .* holds only {COUNT} images"):
        scored(checkpoint, scores={"psnr"}, num_images=25)


def test_images_of_a_wrong_size_are_an_error_before_they_are_encoded(checkpoint, tmp_path):
    for size in (30, 8):
        open_images(f"builtin:photos?train=1&val={size}", "val", image_size=size, root=tmp_path / "odd")
    with pytest.raises(DataError, match="multiples of 4, such as"):
        scored(checkpoint, data=str(tmp_path / "odd/photos-train1-val30-30"))
    with pytest.raises(DataError, match="images of 8x8 are too small: ssim at least 11 px"):
        scored(checkpoint, data=str(tmp_path / "odd/photos-train1-val8-8"))


def test_a_reconstruction_that_is_not_finite_names_the_image(checkpoint):
    broken = load_autoencoder(checkpoint)
    with torch.no_grad():
        broken.decoder.conv_out.bias[1] = float("nan")
    write_autoencoder(checkpoint, broken, recipe())
    first = open_images(SOURCE, "val", image_size=SIDE).read([0]).ids[0]
    with pytest.raises(CheckpointError, match=f"image {first} holds NaN or infinity"):
        scored(checkpoint)


def test_any_tokenizer_with_a_decoder_is_scored_and_an_encoder_is_an_error(checkpoint, tmp_path, monkeypatch):
    """Nearest-neighbour control: every 8x8 block becomes its mean. Pixels: reconstructions are exact, so PSNR is infinite."""
    shards = open_images(SOURCE, "val", image_size=SIDE)
    images, data = to_uint8(shards.read(range(COUNT)).images).double().numpy(), str(shards.folder)
    blocks = images.reshape(COUNT, 3, SIDE // 8, 8, SIDE // 8, 8).mean((3, 5))
    decoded = np.rint(blocks.repeat(8, 2).repeat(8, 3))
    errors = ((images - decoded) ** 2).mean((1, 2, 3))
    found = evaluate("control:nearest", EvalOptions(scores={"psnr"}, data=data), console=Console(quiet=True))
    assert found.scores["psnr"].value == pytest.approx(np.mean(10 * np.log10(255**2 / errors)), rel=1e-4)
    assert found.checkpoint.path == "control:nearest" and found.checkpoint.step is None
    assert "24 of 24 images are reproduced exactly" in scored("pixels", scores={"psnr"}, data=data)["psnr"].notes
    monkeypatch.setenv("SMTOOL_WEIGHTS", str(tmp_path))
    torch.save({name: value.half() for name, value in squeezenet1_1(weights=None).state_dict().items()},
               tmp_path / "squeezenet1_1_torchvision_fp16.pth")
    with pytest.raises(CheckpointError, match="squeezenet has no decoder and cannot reconstruct"):
        scored("squeezenet", scores={"psnr"}, data=data)
