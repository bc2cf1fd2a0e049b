"""Names on the hub, against a server on loopback."""

import os
from pathlib import Path

import pytest
import torch
import warm_process
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch.testing import assert_close

from smtool.checkpoints.hub.fetch import HubName, hub_name, selected
from smtool.checkpoints.hub.published import PUBLISHED
from smtool.errors import CheckpointError, WeightsError
from smtool.tokenizers import identify, load_autoencoder, open_tokenizer

IMAGES = torch.rand(1, 3, 16, 16) * 2 - 1
SIZES = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 4}


def tiny(**config) -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8, 16), **SIZES, **config).eval()


def assert_equal(name: str, theirs: AutoencoderKL) -> None:
    with torch.no_grad():
        assert_close(open_tokenizer(name).encode(IMAGES).mean, theirs.encode(IMAGES).latent_dist.mean, rtol=1e-4, atol=1e-5)


def test_a_repository_is_downloaded_once_with_its_size_and_then_taken_from_the_cache(hub, tmp_path, capsys):
    theirs, older = tiny(scaling_factor=0.5), tiny()
    theirs.save_pretrained(tmp_path / "new")
    older.save_pretrained(tmp_path / "old")
    (tmp_path / "new" / "README.md").write_text("not needed")
    hub.folders["org/vae"] = {"main": tmp_path / "new", "old": tmp_path / "old"}
    assert_equal("org/vae", theirs)
    size = sum((tmp_path / "new" / file).stat().st_size for file in ("config.json", "diffusion_pytorch_model.safetensors"))
    assert f"Downloading org/vae: 2 files, {size / 1e6:,.1f} MB, into {tmp_path / 'cache'}." in capsys.readouterr().err
    assert not any("README" in path for path in hub.asked)
    hub.asked.clear()
    found = open_tokenizer("org/vae")
    assert (found.label, found.source, found.stats.std.item()) == ("vae", "org/vae", 2.0)
    assert hub.asked == [] and capsys.readouterr().err == ""
    assert identify("org/vae").place == "org/vae"
    assert_equal("org/vae@old", older)
    assert_equal(f"org/vae@{'b' * 40}", older)


def test_a_subfolder_a_file_and_the_vae_of_a_pipeline(hub, tmp_path):
    theirs, other = tiny(), tiny()
    theirs.save_pretrained(tmp_path / "pipe" / "vae")
    (tmp_path / "pipe" / "model_index.json").write_text("{}")
    other.save_pretrained(tmp_path / "pipe" / "deep" / "er", max_shard_size="20KB")
    save_file(other.state_dict(), tmp_path / "pipe" / "MS-LC-EQ file.safetensors")
    hub.folders["org/pipe"] = {"main": tmp_path / "pipe"}
    assert_equal("org/pipe", theirs)
    assert_equal("org/pipe:vae", theirs)
    assert_equal("org/pipe:deep/er", other)
    assert len(list((tmp_path / "cache").rglob("*-of-*.safetensors"))) > 2
    assert load_autoencoder("org/pipe:MS-LC-EQ file.safetensors,norm_groups=4").config.padding == "reflect"
    assert_equal("org/pipe:MS-LC-EQ file.safetensors,norm_groups=4,padding=zeros", other)


def test_a_short_name_stands_for_its_repository_and_adds_the_published_scale(hub, tmp_path):
    theirs = tiny()
    theirs.save_pretrained(tmp_path / "sdxl")
    config = tmp_path / "sdxl" / "config.json"
    config.write_text(config.read_text().replace('"scaling_factor": 0.18215', '"scaling_factor": null'))
    hub.folders["stabilityai/sdxl-vae"] = {"main": tmp_path / "sdxl", "old": tmp_path / "sdxl"}
    for name in ("sdxl", "sdxl@old"):
        found = open_tokenizer(name)
        assert found.label == name
        assert_close(found.stats.normalize(torch.ones(1, 4, 1, 1)), torch.full((1, 4, 1, 1), 0.13025))
    (tmp_path / "here" / "runs" / "sdxl").mkdir(parents=True)
    tiny().save_pretrained(tmp_path / "here" / "runs" / "sdxl")
    assert identify("sdxl").place == "runs/sdxl"      # what is here comes first


def test_every_short_name_is_a_name_on_the_hub():
    for short, published in PUBLISHED.items():
        assert str(hub_name(short)) == published.place
        assert hub_name(f"{short}@v1").revision == "v1"
    sd3, latents = PUBLISHED["sd3"].stats, torch.ones(1, 16, 1, 1)
    assert_close(sd3.normalize(latents), (latents - 0.0609) * 1.5305)
    assert PUBLISHED["sdxl"].normalization == "z * 0.13025"


def test_the_page_lists_every_short_name():
    page = (Path(__file__).parents[3] / "docs/how-to/own-autoencoder.md").read_text()
    for name, published in PUBLISHED.items():
        assert f"| `{name}` | `{published.place}` | {published.what} | {published.normalization} |" in page


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("org/none", CheckpointError, r"no such file, folder or run here, and no such repository on the hub \(http://127"),
        ("org/vae@new", CheckpointError, r"org/vae has no revision 'new'"),
        ("org/vae:other", CheckpointError, r"the folder other of org/vae on the hub does not[\s\S]*its weights are a\.pt"),
        ("org/vae", CheckpointError, r"org/vae on the hub does not show which file is meant[\s\S]*org/vae:FILE"),
        ("org/empty", CheckpointError, r"has no files of weights"),
        ("org/gated", WeightsError, r"accept a licence[\s\S]*hf download org/gated --local-dir FOLDER"),
    ],
)
def test_what_the_hub_does_not_have_is_said(name, error, words, hub, tmp_path):
    for folder, files in (("two", ("a.pt", "b.pt")), ("empty", ("README.md",))):
        (tmp_path / folder).mkdir()
        for file in files:
            (tmp_path / folder / file).touch()
    hub.folders |= {"org/vae": {"main": tmp_path / "two"}, "org/empty": {"main": tmp_path / "empty"}}
    with pytest.raises(error, match=words):
        open_tokenizer(name)


def test_names_of_local_places_are_not_asked_for(hub, tmp_path):
    (tmp_path / "here" / "mine").mkdir()
    for name in ("runs/dsm", "weights/vae", "mine/vae", "some/vae.safetensors", "some/recipe.toml", "a/b/c", "vae"):
        with pytest.raises(CheckpointError, match="no such file, folder or run"):
            open_tokenizer(name)
    assert hub.asked == []


def test_half_a_download_is_completed(hub, tmp_path):
    theirs = tiny()
    theirs.save_pretrained(tmp_path / "vae", max_shard_size="20KB")
    hub.folders["org/vae"] = {"main": tmp_path / "vae"}
    assert_equal("org/vae", theirs)
    sorted((tmp_path / "cache").rglob("snapshots/*/*-of-*.safetensors"))[1].unlink()
    assert_equal("org/vae", theirs)


def test_of_several_files_the_best_known_is_selected():
    name, weights = HubName("org/x"), "diffusion_pytorch_model"
    files = [f"{weights}.bin", f"{weights}.fp16.safetensors", f"{weights}.safetensors", "config.json", "vae/config.json"]
    assert selected(name, files) == (".", ["config.json", f"{weights}.safetensors"])
    assert selected(name, files[:2]) == (".", [f"{weights}.fp16.safetensors"])
    assert selected(name, ["x.safetensors", "y.ckpt"]) == ("x.safetensors", ["x.safetensors"])


@pytest.mark.slow
def test_offline_the_command_exits_4_and_says_what_to_fetch_and_where_to_put_it(hub, tmp_path):
    tiny().save_pretrained(tmp_path / "vae")
    hub.folders["org/vae"] = {"main": tmp_path / "vae"}

    def inspect(name: str, **variables: str):
        environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_ENDPOINT": hub.address, **variables}
        return warm_process.run("inspect", name, env=environment)      # a fork has not imported huggingface_hub yet

    for variables in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = inspect("org/vae:sub@v2", **variables)
        assert done.returncode == 4, done.stderr
        said = " ".join(done.stderr.split())
        assert "org/vae:sub@v2 is not on this machine" in said and "cannot be reached" in said
        assert 'hf download org/vae --include "sub*" --revision v2 --local-dir FOLDER' in said and "HF_HUB_CACHE" in said
    done = inspect("org/vae")
    assert done.returncode == 0, done.stderr
    assert "Downloading org/vae: 2 files" in done.stderr and "autoencoder, in the format of diffusers" in done.stdout
    assert inspect("org/vae", HF_HUB_OFFLINE="1").returncode == 0
