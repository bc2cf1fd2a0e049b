"""Published shapes go in and come out: diffusers opens the exported folder with the same names, number formats and results."""

import io
import json

import diffusers
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLWan
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from smtool.checkpoints import write_autoencoder
from smtool.commands.evaluate.result import Checkpoint, Computation, Images, Reconstructed, ReconstructionEvaluation
from smtool.commands.export import export
from smtool.errors import CheckpointError
from smtool.evaluation.scores import Passport, ReconstructionScore
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE
from smtool.report.console import Console
from smtool.storage import write_json
from smtool.tokenizers import open_tokenizer

SHAPES = ("SD", "SDXL", "FLUX.1", "FLUX.2", "FLUX.2 small decoder", "DC-AE", "Wan")
NORMALIZATION = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")


def results(network, images):
    """Mean of the posterior, and its decoding, of images or of videos of one frame, in float32."""
    network, images = network.float(), images[:, :, None] if isinstance(network, AutoencoderKLWan) else images
    with torch.no_grad():
        encoded = network.encode(images)
        latents = encoded.latent if isinstance(network, AutoencoderDC) else encoded.latent_dist.mode()
        return latents, network.decode(latents).sample


def exported(what, out, **options) -> str:
    printed = io.StringIO()
    export(str(what), to="diffusers", out=out, console=Console(file=printed), **options)
    return printed.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "stored"),
    [*((shape, "folder") for shape in SHAPES),
     *((shape, stored) for shape in ("FLUX.1", "FLUX.2 small decoder", "DC-AE") for stored in ("shards", "file"))],
)
def test_a_published_shape_comes_out_as_it_went_in(shape, stored, published, tmp_path):
    theirs = published(shape)
    theirs.save_pretrained(tmp_path / "in", max_shard_size="40KB" if stored == "shards" else "5GB")
    what, weights = tmp_path / "in", tmp_path / "in" / "diffusion_pytorch_model.safetensors"
    if stored == "file":
        (tmp_path / "in" / "config.json").unlink()
        what = f"{weights},norm_groups=4" if shape != "DC-AE" else weights
    assert stored != "shards" or not weights.is_file()
    exported(what, tmp_path / "out")
    found = load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    expected = theirs.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["_class_name"] == type(theirs).__name__
    if stored == "file":
        assert all(config.get(key) is None for key in NORMALIZATION)
    else:
        assert {key: config.get(key) for key in NORMALIZATION} == {key: theirs.config.get(key) for key in NORMALIZATION}
    again = getattr(diffusers, config["_class_name"]).from_pretrained(tmp_path / "out").eval()
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for ours, original in zip(results(again, images), results(theirs, images), strict=True):
        assert_close(ours, original, rtol=1e-4, atol=1e-5)


def saved(folder, stats=None, **config):
    made = SDVAE(downsample=8, latent_channels=4, channels=(8, 8, 16, 16), norm_groups=4, blocks_per_level=1, **config).build()
    made.stats = stats
    recipe = {"steps": 7, "regularizers": {"dsm": {"block": 8}}}
    write_autoencoder(folder / "ckpt.safetensors", made, {"recipe": recipe, "step": 7})
    return made


def evaluation(digest: str) -> ReconstructionEvaluation:
    images = {"source": "builtin:photos", "folder": "data/photos-64", "split": "val", "image_size": 64, "sha256": "ab" * 32}
    passport = Passport(
        metric="psnr", extractor=None, extractor_sha256=None, resize="none", codec="none", protocol="clean", num_images=8,
        images_sha256="ab" * 32, num_reference=8, reference_sha256="ab" * 32, seed=0, posterior="mode",
    )
    score = ReconstructionScore(
        name="psnr", title="PSNR, dB", better="higher", value=25.5, half_width=0.5, notes=(), passport=passport
    )
    return ReconstructionEvaluation(
        smtool="0", computed=Computation(device="cpu", precision="float32", torch="2"), scores={"psnr": score},
        checkpoint=Checkpoint(path="ckpt", sha256=digest, step=7), images=Reconstructed(**images), reference=Images(**images),
        warnings={},
    )


def test_the_model_card_has_a_head_a_picture_scores_of_this_autoencoder_and_the_recipe(tmp_path):
    made = saved(tmp_path / "run", LatentStats("scalar", torch.zeros(1), torch.tensor([4.0]), 100, "abc"))
    write_json(tmp_path / "run" / "scores.json", evaluation(made.digest).to_json())
    write_json(tmp_path / "run" / "older.json", evaluation("0" * 64).to_json())
    write_json(tmp_path / "run" / "other.json", {"a": 1})
    said = exported(tmp_path / "run" / "ckpt.safetensors", tmp_path / "out")
    assert "README.md" in said and "spectrum.png" in said
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "diffusers" and {"smtool", "dsm"} <= set(card.data.tags)
    assert card.text.count("## Scores") == 1 and "25.50 ± 0.50" in card.text and '"protocol": "clean"' in card.text
    assert "Normalized latents are z * 0.25 (measured on 100 samples)" in card.text
    assert "[regularizers.dsm]\nblock = 8" in card.text and "7 steps" in card.text and made.digest in card.text
    assert "lower than that of images (delta; 95 % interval" in card.text and "![Power spectra" in card.text
    with Image.open(tmp_path / "out" / "spectrum.png") as picture:
        assert min(picture.size) > 300


def test_the_number_format_of_the_file_is_kept_by_both_formats(tmp_path):
    made = saved(tmp_path)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in made.state_dict().items()}
    save_file(weights, tmp_path / "vae.safetensors")
    what, out = f"{tmp_path / 'vae.safetensors'},norm_groups=4", tmp_path / "again.safetensors"
    export(what, to="smtool", out=out, console=Console(quiet=True))
    assert {tensor.dtype for tensor in load_file(out).values()} == {torch.bfloat16}
    assert open_tokenizer(out).digest == open_tokenizer(what).digest


def test_reflected_edges_need_a_flag_and_the_card_has_the_code_for_diffusers(tmp_path):
    made = saved(tmp_path, padding="reflect").eval()
    with pytest.raises(CheckpointError, match=r"pads by reflection, for which diffusers has no setting[\s\S]*--reflect"):
        exported(tmp_path / "ckpt.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    exported(tmp_path / "ckpt.safetensors", tmp_path / "out", symmetric=True)
    theirs = AutoencoderKL.from_pretrained(tmp_path / "out").eval()
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert not torch.allclose(theirs.encode(images).latent_dist.mean, made.encode(images).mean, atol=1e-3)
        lines = [line for line in (tmp_path / "out" / "README.md").read_text().splitlines() if line.startswith("    ")]
        exec("\n".join(line[4:] for line in lines), {"vae": theirs})
        assert_close(theirs.encode(images).latent_dist.mean, made.encode(images).mean, rtol=1e-4, atol=1e-5)
    assert open_tokenizer(tmp_path / "out").digest == made.digest


def test_a_decoder_of_other_widths_gets_a_batch_norm_that_normalizes_as_its_statistics_do(tmp_path):
    mean, std = torch.linspace(-1, 1, 4), torch.linspace(0.5, 2, 4)
    saved(tmp_path, LatentStats("channel", mean, std, 100, "abc"), decoder_channels=(4, 8, 12, 12))
    exported(tmp_path / "ckpt.safetensors", tmp_path / "out")
    theirs = AutoencoderKLFlux2.from_pretrained(tmp_path / "out").eval()
    latents = torch.randn(1, 4, 2, 2)
    patches = latents.reshape(1, 16, 1, 1)      # one patch: channel, row, column
    expected = ((latents - mean.view(4, 1, 1)) / std.view(4, 1, 1)).reshape(1, 16, 1, 1)
    assert_close(theirs.bn(patches), expected, rtol=1e-4, atol=1e-5)


def test_a_decoder_of_another_depth_has_no_class_in_diffusers(tmp_path):
    saved(tmp_path, decoder_blocks=1)
    with pytest.raises(CheckpointError, match=r"decoder has 1 blocks per level, but diffusers always uses 2[\s\S]*--to smtool"):
        exported(tmp_path / "ckpt.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()
