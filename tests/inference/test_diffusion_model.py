"""Checkpoints of diffusion transformers: their content, and the files that are refused."""

import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderTiny

from smtool import load_autoencoder
from smtool.checkpoints.diffusion import is_diffusion
from smtool.data import open_images
from smtool.errors import CheckpointError
from smtool.inference.diffusion_model import find_diffusion, read_diffusion, write_diffusion
from smtool.networks.taesd import TAESD
from smtool.recipe import TrainDiT, load
from smtool.storage import read_metadata, read_shapes, read_tensors, write_tensors


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_checkpoint_holds_the_weight_average_and_the_autoencoder(studio, finished, tmp_path, monkeypatch):
    shutil.copy(finished / "ckpt.safetensors", tmp_path)
    autoencoder = load_autoencoder("runs/tiny")
    monkeypatch.chdir(tmp_path)
    model = read_diffusion(tmp_path / "ckpt.safetensors")
    average = read_tensors(finished / "checkpoints" / "00000008" / "ema.safetensors")
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, average[f"transformer/network.{name}"])
    assert same(model.autoencoder, autoencoder)
    assert (model.latent_shape, model.num_classes, model.tables.sampler.kind) == ((2, 8, 8), 3, "euler")
    facts = {key: model.metadata[key] for key in ("kind", "step", "weights", "data", "image_size")}
    assert facts == {"kind": "diffusion", "step": 8, "weights": "average", "data": "data/classes", "image_size": 32}
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert not model.network.training


def test_a_written_checkpoint_reads_back_equal(studio, finished, tmp_path):
    model = read_diffusion(finished / "ckpt.safetensors")
    write_diffusion(tmp_path / "again.safetensors", model, recipe=model.metadata["recipe"])
    again = read_diffusion(tmp_path / "again.safetensors")
    assert same(again.network, model.network)
    assert same(again.autoencoder, model.autoencoder)
    assert again.tables == model.tables
    assert again.metadata == model.metadata
    assert torch.equal(again.stats.mean, model.stats.mean)
    assert torch.equal(again.stats.std, model.stats.std)
    x, t, y = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.8]), torch.tensor([0, 3])
    with torch.no_grad():
        assert torch.equal(again.network(x, t, y).output, model.network(x, t, y).output)


def test_the_statistics_make_training_latents_standard(studio, finished):
    """Latents of the training images, normalized by the checkpoint's statistics, have mean 0 and std 1 in each channel."""
    model = read_diffusion(finished / "ckpt.safetensors")
    with torch.no_grad():
        posterior = model.autoencoder.encode(open_images("data/classes", "train", image_size=32).read(range(42)).images)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0))
    latents = model.stats.normalize(posterior.sample(noise))
    assert latents.mean((0, 2, 3)).abs().max() < 0.05
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.05


@pytest.mark.parametrize("kind", ["uvit", "sit"])
def test_autoencoders_that_are_not_embedded_are_named_and_another_one_is_refused(studio, finished, tmp_path, kind):
    changes = ["latents.embed=false", f"model.kind={kind}", "labels="]
    tables = load(studio.recipe, TrainDiT, changes).tables
    studio.write_autoencoder(tmp_path / "ae.safetensors", 0)
    model = read_diffusion(finished / "ckpt.safetensors")
    network = tables.model.build((2, 8, 8), 0)
    metadata = {**model.metadata, "autoencoder_path": str(tmp_path / "ae.safetensors")}
    model = replace(model, tables=tables, network=network, num_classes=0, metadata=metadata)
    path = tmp_path / "ckpt.safetensors"
    write_diffusion(path, model, recipe=tables.model_dump(mode="json", exclude_none=True))
    assert not [name for name in read_shapes(path) if name.startswith("autoencoder.")]
    again = read_diffusion(path)
    assert same(again.network, network)
    assert same(again.autoencoder, load_autoencoder(tmp_path / "ae.safetensors"))
    studio.write_autoencoder(tmp_path / "ae.safetensors", 1)
    with pytest.raises(CheckpointError, match=r"is not the autoencoder .* its digest differs"):
        read_diffusion(path)
    (tmp_path / "ae.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        read_diffusion(path)


def test_files_of_another_kind_are_refused(studio, finished, tmp_path):
    autoencoder = studio.folder / "runs" / "tiny" / "ckpt.safetensors"
    with pytest.raises(CheckpointError, match="holds kind 'autoencoder', but a diffusion transformer is needed"):
        read_diffusion(autoencoder)
    with pytest.raises(CheckpointError, match="holds kind 'diffusion', but an autoencoder is needed"):
        load_autoencoder(finished)
    write_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="without smtool's description"):
        read_diffusion(tmp_path / "other.safetensors")
    assert is_diffusion(finished / "ckpt.safetensors")
    assert not is_diffusion(autoencoder)
    assert not is_diffusion(tmp_path / "other.safetensors")
    assert not is_diffusion(tmp_path)


@pytest.mark.parametrize("part", ["network.blocks.1.attn.qkv.weight", "autoencoder.decoder.conv_in.bias"])
def test_missing_and_misshapen_weights_are_refused(studio, finished, tmp_path, part):
    path = finished / "ckpt.safetensors"
    tensors, metadata = read_tensors(path), read_metadata(path)
    for name, changed in (("missing", {}), ("misshapen", {part: torch.zeros(3, 5)})):
        others = {key: tensor for key, tensor in tensors.items() if key != part}
        write_tensors(tmp_path / f"{name}.safetensors", {**others, **changed}, metadata)
        with pytest.raises(CheckpointError, match="does not hold the weights that it describes") as caught:
            read_diffusion(tmp_path / f"{name}.safetensors")
        assert part.split(".", 1)[1] in str(caught.value)


def test_a_recipe_of_another_version_is_an_error(studio, finished, tmp_path):
    path = finished / "ckpt.safetensors"
    metadata = read_metadata(path)
    metadata["recipe"]["model"]["experts"] = 8
    write_tensors(tmp_path / "newer.safetensors", read_tensors(path), {**metadata, "smtool": "9.9"})
    with pytest.raises(CheckpointError, match=r"was written by smtool 9\.9"):
        read_diffusion(tmp_path / "newer.safetensors")


def test_checkpoints_are_found_by_file_folder_and_name(studio, finished):
    assert find_diffusion(str(finished)) == finished / "ckpt.safetensors"
    assert find_diffusion(str(finished / "ckpt.safetensors")) == finished / "ckpt.safetensors"
    assert find_diffusion("dit").resolve() == finished / "ckpt.safetensors"
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        find_diffusion("runs")


OBJECT = """
import torch.nn.functional as F
class Pool:
    def encode(self, x):
        return F.avg_pool2d(x, 4)
    def decode(self, z):
        return F.interpolate(z, scale_factor=4.0)
"""


@pytest.fixture
def named(studio, tmp_path) -> dict[str, str]:
    """Short name -> name of a tokenizer: arithmetic, TAESD's two files, a diffusers folder, a Python object."""
    tiny = TAESD(latent_channels=2, width=8).build()
    for half in ("encoder", "decoder"):
        torch.save(getattr(tiny, half).state_dict(), tmp_path / f"tae_{half}.pth")
    widths = {f"{half}_block_out_channels": (8,) * 3 for half in ("encoder", "decoder")}
    AutoencoderTiny(**widths, num_encoder_blocks=(1,) * 3, num_decoder_blocks=(1,) * 3).save_pretrained(tmp_path / "theirs")
    (studio.folder / "pool_of_mine.py").write_text(OBJECT)
    return {
        "pixels": "pixels",
        "control": "control:space-to-depth",
        "taesd": str(tmp_path / "tae_encoder.pth"),
        "diffusers": str(tmp_path / "theirs"),
        "object": "pool_of_mine:Pool",
    }


@pytest.mark.parametrize(
    ("which", "patch", "kind"),
    [("pixels", 8, "pixels"), ("control", 1, "control"), ("taesd", 1, "taesd"), ("diffusers", 2, None), ("object", 2, None)],
)
def test_a_run_on_any_tokenizer_embeds_or_names_it(studio, named, tmp_path, which, patch, kind):
    """A tokenizer that smtool can rebuild is embedded with its weights; one of another library is named, with its digest."""
    name = named[which]
    changes = (f"latents.autoencoder={name!r}", "data.train='data/classes'", "data.image_size=32", f"model.patch={patch}")
    run = studio.train(tmp_path / "run", *changes, "steps=2", "validation.num_images=2")
    described = read_metadata(run / "ckpt.safetensors")["autoencoder"]
    assert described["embedded"] == (kind is not None)
    assert (described["model"] or {}).get("kind") == kind
    stored = [tensor for tensor in read_shapes(run / "ckpt.safetensors") if tensor.startswith("autoencoder.")]
    assert bool(stored) == (which == "taesd")
    for half in tmp_path.glob("tae_*.pth"):
        half.unlink()      # the files of an embedded tokenizer are no longer needed
    model = read_diffusion(run / "ckpt.safetensors")
    assert model.autoencoder.digest == described["digest"]
    latents = torch.zeros(1, *model.latent_shape)
    assert model.autoencoder.decode(model.stats.denormalize(latents)).shape == (1, 3, 32, 32)


def test_a_tokenizer_of_a_later_version_is_an_error(studio, finished, tmp_path):
    metadata = read_metadata(finished / "ckpt.safetensors")
    metadata["autoencoder"]["model"] = {"kind": "dct"}
    write_tensors(tmp_path / "newer.safetensors", read_tensors(finished / "ckpt.safetensors"), metadata)
    with pytest.raises(CheckpointError, match="describes a tokenizer that is unknown to this version"):
        read_diffusion(tmp_path / "newer.safetensors")
