"""Files of published shapes go in, train for five steps, and come out: diffusers opens them with the same results."""

import io
import json
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.testing import assert_close

from smtool.commands.export import export
from smtool.commands.train import training
from smtool.recipe import TrainAE, load
from smtool.report.console import Console
from smtool.tokenizers import open_tokenizer

RECIPE = """
steps = 5
log_every = 5
evaluate_every = 5
save_every = 5
ema = { decay = 0.5 }
optimizer = { lr = 1e-3, warmup = 0 }
validation = { num_images = 8, grid = 4 }
tracking = { tensorboard = false }
[data]
batch = 4
image_size = 32
"""
WEIGHTS = "diffusion_pytorch_model"
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def trained(studio, hub, tmp_path):
    """(model.init, changes) -> the run. The current folder is empty, and `hub` is the endpoint."""

    def run(init: str, *changes: str) -> Path:
        (tmp_path / "heal.toml").write_text(RECIPE)
        data = studio.folder / "data/classes"
        given = [f"model.init={init}", f"data.train={data}", f"data.validation={data}", *changes]
        loaded = load(str(tmp_path / "heal.toml"), TrainAE, given)
        return training.train(loaded, console=Console(file=io.StringIO()), out=tmp_path / "run")

    return run


def exported(run: Path, to: str, out: Path) -> Path:
    export(str(run), to=to, out=out, console=Console(file=io.StringIO()))
    return out


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def forms(weights) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()}


def assert_same(run: Path, folder: Path, dtype: torch.dtype) -> None:
    """diffusers' results from a folder, and those of the run with its weights rounded to a number format, in float32."""
    ours = open_tokenizer(run)
    for weight in ours.parameters():
        weight.copy_(weight.to(dtype).float())
    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    theirs = getattr(diffusers, kind).from_pretrained(folder).eval().float()
    with torch.no_grad():
        mean = theirs.encode(IMAGES).latent_dist.mean
        assert_close(mean, ours.encode(IMAGES).mean, rtol=1e-4, atol=1e-5)
        assert_close(theirs.decode(mean).sample, ours.decode(mean), rtol=1e-4, atol=1e-5)
        if kind == "AutoencoderKLFlux2":
            expected = theirs.bn(F.pixel_unshuffle(mean, 2))
            tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.01, "atol": 0.02}
            assert_close(F.pixel_unshuffle(ours.stats.normalize(mean), 2), expected, **tolerance)
        else:
            shift = theirs.config.shift_factor or 0
            assert_close(ours.stats.normalize(mean), (mean - shift) * theirs.config.scaling_factor, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "stored"),
    [("SD", "folder"), ("SDXL", "hub"), ("FLUX.1", "shards"), ("FLUX.2", "hub"), ("FLUX.2 small decoder", "shards"),
     ("FLUX.1", "hub shards")],
)
def test_a_folder_comes_out_in_its_own_form_and_in_that_of_diffusers(shape, stored, published, trained, hub, tmp_path):
    theirs = published(shape)
    theirs.save_pretrained(tmp_path / "in", max_shard_size="40KB" if "shards" in stored else "5GB")
    hub.folders["org/vae"] = {"main": tmp_path / "in"}
    run = trained("org/vae" if "hub" in stored else tmp_path / "in")
    dtype = next(theirs.parameters()).dtype
    out = exported(run, "original", tmp_path / "original")
    before, after = tensors(tmp_path / "in"), tensors(out)
    assert forms(before) == forms(after)
    assert not any(torch.equal(before[name], after[name]) for name in before if name.startswith("encoder.conv_in"))
    files = {path.name for path in (tmp_path / "in").iterdir()}
    assert {path.name for path in out.iterdir()} == files
    if "shards" in stored:
        index = f"{WEIGHTS}.safetensors.index.json"
        one, two = (json.loads((folder / index).read_text()) for folder in (tmp_path / "in", out))
        assert one["weight_map"] == two["weight_map"] and len(files) > 4
        assert two["metadata"]["total_size"] == sum(tensor.nbytes for tensor in after.values())
        for path in out.glob("*.safetensors"):
            assert forms(load_file(path)) == forms(load_file(tmp_path / "in" / path.name))
    assert_same(run, out, dtype)
    assert_same(run, exported(run, "diffusers", tmp_path / "diffusers"), torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "stored"), [("SD", "file"), ("FLUX.2 small decoder", "hub file"), ("FLUX.2 small decoder", "shards by index")]
)
def test_a_file_alone_comes_out_with_a_config_for_diffusers(shape, stored, published, trained, hub, tmp_path):
    theirs = published(shape)
    theirs.save_pretrained(tmp_path / "in", max_shard_size="40KB" if "shards" in stored else "5GB")
    (tmp_path / "in" / "config.json").unlink()
    hub.folders["org/vae"] = {"main": tmp_path / "in"}
    place = f"org/vae:{WEIGHTS}.safetensors" if "hub" in stored else f"{tmp_path / 'in' / WEIGHTS}.safetensors"
    run = trained(f"'{place}{'.index.json' if 'shards' in stored else ''},norm_groups=4'")
    out = exported(run, "original", tmp_path / "original")
    assert forms(tensors(tmp_path / "in")) == forms(tensors(out))
    assert_same(run, out, torch.float32)
    assert_same(run, exported(run, "diffusers", tmp_path / "diffusers"), torch.float32)
