"""Files of the shapes of DCTdiff and of U-ViT on pixels, with random weights, sampled with the tokens of their training."""

import json

import pytest
import torch

from smtool.inference.diffusion_model import read_diffusion
from smtool.inference.published import import_transformer
from smtool.networks.shapes_only import shapes_only
from smtool.networks.uvit import UViT

ROWS = {
    "cifar10": (UViT(size="M", patch=1, final_conv=False), (24, 8, 8), 0, "dct:2x4", 2.0),
    "celeba64": (UViT(size="S", patch=1, final_conv=False), (24, 16, 16), 0, "dct:2x4", 4.0),
    "imagenet64": (UViT(size="S", patch=1, final_conv=False, null_class=False), (24, 16, 16), 1000, "dct:2x4", 4.0),
    "ffhq128": (UViT(size="S", patch=1, final_conv=False), (54, 16, 16), 0, "dct:4x9", 3.0),
    "ffhq256": (UViT(size="M", patch=1, final_conv=False), (48, 32, 32), 0, "dct:4x8", 1.0),
}


def _file(path, config, shape, num_classes=0, *, linear=True):
    """A file of these shapes, whose values are views of one number. linear: with DCTdiff's name and shape of the first layer."""
    with shapes_only():
        shapes = {name: tuple(value.shape) for name, value in config.build(shape, num_classes).state_dict().items()}
    state = {name: torch.full((1,), 0.01).expand(size) for name, size in shapes.items()}
    if linear:
        state["proj.weight"] = state.pop("patch_embed.proj.weight").flatten(1)
        state["proj.bias"] = state.pop("patch_embed.proj.bias")
    torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ROWS)
def test_each_published_model_is_recognized_with_its_snr_scale(tmp_path, name):
    config, shape, num_classes, tokens, scale = ROWS[name]
    model = import_transformer(_file(tmp_path / "nnet_ema.pth", config, shape, num_classes), f"{tokens},eta={name}")
    process = model.tables.process
    assert (process.kind, process.snr_scale, process.prediction) == ("vp-sde", scale, "eps")
    assert (model.tables.sampler.kind, model.tables.sampler.steps) == ("dpm-solver-fast", 50)
    assert (model.latent_shape, model.num_classes, model.stats.std.tolist()) == (shape, num_classes, [1.0])


SMALL = UViT(size="custom", depth=2, width=32, heads=2, patch=1, final_conv=False)


def test_a_file_of_other_sizes_is_sampled_and_converted_with_a_given_scale(tmp_path, command):
    path = _file(tmp_path / "own.pth", SMALL, (24, 4, 4))
    asked = (str(path), "--autoencoder", "dct:2x4,eta=240", "--heads", "2", "--snr-scale", "2.5")
    code, _, err = command("sample", *asked, "--num-images", "4", "--steps", "5", "--out", str(tmp_path / "drawn"))
    assert code == 0, err
    passport = json.loads((tmp_path / "drawn" / "samples.json").read_text())
    assert (passport["sampler"]["kind"], passport["sampler"]["steps"]) == ("dpm-solver-fast", 5)
    code, _, err = command("export", *asked, "--to", "smtool", "--out", str(tmp_path / "ckpt.safetensors"))
    assert code == 0, err
    model = read_diffusion(tmp_path / "ckpt.safetensors")
    assert (model.tables.process.snr_scale, model.autoencoder.config.eta) == (2.5, 240.0)


def test_uvit_on_pixels_has_the_continuous_process_and_images_in_their_range(tmp_path):
    config = UViT(size="custom", depth=2, width=32, heads=2, patch=4)
    model = import_transformer(_file(tmp_path / "nnet.pth", config, (3, 16, 16), linear=False), "pixels", heads=2)
    assert (model.tables.process.kind, model.tables.process.snr_scale) == ("vp-sde", 1.0)
    assert (model.latent_shape, model.stats.mean.tolist(), model.stats.std.tolist()) == ((3, 16, 16), [0.0], [1.0])


def test_the_published_baselines_on_pixels_are_read(tmp_path):
    path = _file(tmp_path / "nnet.pth", UViT(size="S", patch=4, null_class=False), (3, 64, 64), 1000, linear=False)
    model = import_transformer(path, "pixels")
    assert (model.num_classes, model.tables.model.size, model.tables.process.kind) == (1000, "S", "vp-sde")
    assert not model.tables.model.has_null_class


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("celeba64", ["dct:2x4"], "trained on the tokens of dct:2x4,eta=celeba64, not on those of dct:2x4."),
        ("celeba64", ["dct:2x4,eta=cifar10"], "Pass --autoencoder dct:2x4,eta=celeba64"),
        ("celeba64", ["dct:4x4,eta=480"], "is the published model of celeba64"),
        ("celeba64", ["dct:4x9,eta=ffhq128"], "but the latents of dct:4x9,eta=ffhq128 have 54 channels"),
        ("own", ["dct:2x4,eta=240", "--heads", "2"], "its file has no SNR scale"),
        ("own", ["dct:2x4,eta=240", "--heads", "2", "--snr-scale", "0"], "--snr-scale 0: must be a positive number"),
        ("own", ["pixels", "--heads", "2"], "but the latents of pixels have 3 channels"),
        ("imagenet64", ["dct:2x4,eta=imagenet64", "--cfg-scale", "2"], "must be 1 for a network without a null class"),
    ],
)
def test_wrong_tokens_are_an_error_of_one_sentence(tmp_path, command, name, options, words):
    config, shape, num_classes = ROWS[name][:3] if name in ROWS else (SMALL, (24, 4, 4), 0)
    path = _file(tmp_path / "nnet_ema.pth", config, shape, num_classes)
    code, _, err = command("sample", str(path), "--num-images", "2", "--out", str(tmp_path / "drawn"), "--autoencoder", *options)
    assert (code in (2, 3), words in err, "Traceback" in err) == (True, True, False), err
    assert not (tmp_path / "drawn").exists()


def test_an_snr_scale_is_refused_where_no_process_has_it(tmp_path, studio, command):
    config = UViT(size="custom", depth=2, width=32, heads=2, patch=1)
    path = _file(tmp_path / "nnet.pth", config, (2, 8, 8), linear=False)
    code, _, err = command("sample", str(path), "--autoencoder", "runs/tiny", "--heads", "2", "--scale", "1", "--snr-scale", "2")
    assert (code, "whose process has no SNR scale" in err) == (3, True), err
