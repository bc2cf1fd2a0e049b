"""`smtool export NEW --align OLD`: the aligned autoencoder has the latents of OLD and the reconstructions of NEW."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch.testing import assert_close

from smtool.checkpoints import write_autoencoder
from smtool.checkpoints.foreign.export_diffusers import write_diffusers
from smtool.commands.prepare.images import prepare
from smtool.data import open_images
from smtool.networks.folding import folded
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE
from smtool.networks.taesd import TAESD
from smtool.randomness import initializing
from smtool.storage import read_metadata
from smtool.tokenizers import load_autoencoder

SCALE, SHIFT = torch.tensor([2.0, -0.5]), torch.tensor([3.0, -1.0])
STATS = LatentStats("channel", torch.tensor([0.5, -0.25]), torch.tensor([1.5, 0.75]), 9, "measured", torch.zeros(2))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """24 validation crops of 32 px."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    prepare("builtin:photos?train=24&val=24", out=folder, size=32, val_fraction=0.05, workers=1)
    return str(folder)


def network(**config):
    """A random autoencoder, with means of several sizes per channel."""
    with initializing("align"):
        return SDVAE(
            downsample=4, latent_channels=2, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1, **config
        ).build().eval()  # fmt: skip


@pytest.fixture
def pair(tmp_path):
    """Writes OLD, and NEW, whose latents are (z - SHIFT) / SCALE of OLD's; returns their paths."""

    def write(stats=None, own=None, metadata=(), **config):
        old, later = network(**config), folded(network(**config), 1 / SCALE, -SHIFT / SCALE)
        old.stats, later.stats = stats, own
        write_autoencoder(tmp_path / "old.safetensors", old, {})
        write_autoencoder(tmp_path / "new.safetensors", later, dict(metadata))
        return str(tmp_path / "old.safetensors"), str(tmp_path / "new.safetensors")

    return write


def pictures(data):
    return open_images(data, "val", image_size=32).read(range(4)).images


def test_an_aligned_file_has_the_latents_of_the_old_and_the_images_of_the_new(pair, data, command, tmp_path):
    old, new = pair(STATS, metadata={"origin": {"place": "gone", "digest": "0"}, "step": 7})
    out = tmp_path / "aligned.safetensors"
    code, said, err = command("export", new, "--align", old, "--data", data, "--to", "smtool", "--out", str(out))
    assert code == 0, err
    assert "latents miss" in said and "that the map was not fitted on" in said
    before, after, first = load_autoencoder(new), load_autoencoder(out), load_autoencoder(old)
    x = pictures(data)
    z = before.encode(x)
    scale, shift = SCALE.view(1, 2, 1, 1), SHIFT.view(1, 2, 1, 1)
    assert_close(after.encode(x).mean, scale * z.mean + shift, rtol=0, atol=1e-4)
    assert_close(after.encode(x).mean, first.encode(x).mean, rtol=0, atol=1e-4)
    assert_close(after.encode(x).std, first.encode(x).std, rtol=1e-3, atol=1e-5)
    assert_close(after.decode(after.encode(x).mean), before.decode(z.mean), rtol=0, atol=1e-4)
    assert after.stats.to_metadata() == STATS.to_metadata()
    metadata = read_metadata(out)
    np.testing.assert_allclose(metadata["aligned"]["scale"], SCALE, rtol=1e-3)
    assert (metadata["step"], metadata["aligned"]["digest"], "origin" in metadata) == (7, first.digest, False)
    assert metadata["aligned"]["after"] < 1e-6 < metadata["aligned"]["before"]


def test_without_statistics_of_the_old_those_of_the_new_are_mapped(pair, data, command, tmp_path):
    old, new = pair(None, LatentStats("scalar", torch.tensor([0.5]), torch.tensor([2.0]), 0, "published"))
    out = tmp_path / "aligned.safetensors"
    assert command("export", new, "--align", old, "--data", data, "--to", "smtool", "--out", str(out))[0] == 0
    found = load_autoencoder(out).stats
    assert found.kind == "channel"
    assert_close(found.mean, SCALE * 0.5 + SHIFT, rtol=1e-3, atol=1e-4)
    assert_close(found.std, SCALE.abs() * 2, rtol=1e-3, atol=1e-4)


def test_diffusers_opens_an_aligned_folder_and_the_card_states_the_map(pair, data, command, tmp_path):
    """Without 1x1 convolutions, as in FLUX and SD3: they are added, so that edges are exact."""
    old, new = pair(STATS, quant_convs=False)
    out = tmp_path / "vae"
    code, _, err = command("export", new, "--align", old, "--data", data, "--out", str(out))
    assert code == 0, err
    theirs, before, x = AutoencoderKL.from_pretrained(out).eval(), load_autoencoder(new), pictures(data)
    with torch.no_grad():
        mean = theirs.encode(x).latent_dist.mean
        assert_close(mean, load_autoencoder(old).encode(x).mean, rtol=0, atol=1e-4)
        assert_close(theirs.decode(mean).sample, before.decode(before.encode(x).mean), rtol=0, atol=1e-4)
    card = (out / "README.md").read_text()
    assert "## Alignment" in card and "| 0 | 2 " in card.replace("2.0000", "2 ").replace("1.9999", "2 ")
    assert json.loads((out / "config.json").read_text())["latents_std"] == [1.5, 0.75]


def test_the_form_of_an_original_is_kept_if_it_has_1x1_convolutions(pair, data, command, tmp_path):
    for convs in (True, False):
        place = tmp_path / f"original-{convs}"
        write_diffusers(place, network(quant_convs=convs))
        old, new = pair(STATS, metadata={"origin": {"place": str(place), "digest": "0"}})
        if not convs:
            plain = network(quant_convs=False)
            write_autoencoder(tmp_path / "new.safetensors", plain, {"origin": {"place": str(place), "digest": "0"}})
        out = tmp_path / f"out-{convs}"
        code, _, err = command("export", new, "--align", old, "--data", data, "--to", "original", "--out", str(out))
        if convs:
            assert code == 0, err
            x = pictures(data)
            assert_close(load_autoencoder(out).encode(x).mean, load_autoencoder(old).encode(x).mean, rtol=0, atol=1e-4)
        else:
            assert (code, "has no 1x1 convolution before its decoder" in err, "Traceback" in err) == (3, True, False), err
            assert not out.exists()


def test_what_cannot_be_aligned_is_one_sentence_and_writes_nothing(pair, data, command, tmp_path):
    old, new = pair(STATS)
    with initializing(0):
        tiny, wide = TAESD(width=8, latent_channels=2).build(), network(image_channels=3).config
        wide = wide.model_copy(update={"latent_channels": 3}).build()
    write_autoencoder(tmp_path / "tiny.safetensors", tiny, {})
    write_autoencoder(tmp_path / "wide.safetensors", wide, {})
    lost = load_autoencoder(new)
    with torch.no_grad():
        lost.quant_conv.weight[1].zero_()
    write_autoencoder(tmp_path / "lost.safetensors", lost, {})
    for what, arguments, exit_code, sentence in (
        ("tiny", ["--align", old, "--data", data], 3, "its decoder begins with 3 tanh(z / 3), which has no weights"),
        ("wide", ["--align", old, "--data", data], 3, "its latents are 3x8x8, those of old are 2x8x8"),
        ("lost", ["--align", old, "--data", data], 3, "their channels 1 have a correlation of 0.00"),
        ("new", ["--data", data], 2, "--data has no effect without --align"),
        ("new", ["--align", old, "--autoencoder", old], 2, "--align is for autoencoders only"),
        ("new", ["--align", "nowhere", "--data", data], 3, "nowhere: no such file, folder or run"),
    ):
        out = tmp_path / "out.safetensors"
        code, _, err = command("export", str(tmp_path / f"{what}.safetensors"), *arguments, "--to", "smtool", "--out", str(out))
        assert (code, sentence in " ".join(err.split()), "Traceback" in err) == (exit_code, True, False), err
        assert not out.exists()
