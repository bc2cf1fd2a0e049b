"""Opening by path or name, and errors for those without a tokenizer."""

import tomllib
from pathlib import Path

import pytest
import torch

from smtool.checkpoints import write_autoencoder
from smtool.errors import CheckpointError, RecipeError
from smtool.networks.sd_vae import SDVAE
from smtool.recipe import TrainAE, load
from smtool.storage import read_tensors
from smtool.tokenizers import identify, load_autoencoder, open_tokenizer, specimens

ROOT = Path(__file__).parents[2]
SECTION = SDVAE(downsample=2, channels=(4, 4), norm_groups=2, blocks_per_level=1)


def test_a_file_a_run_folder_and_a_run_name_open_the_same_autoencoder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    autoencoder = SECTION.build()
    write_autoencoder(tmp_path / "runs" / "dsm" / "ckpt.safetensors", autoencoder, {})
    for what in (tmp_path / "runs/dsm/ckpt.safetensors", "runs/dsm", "dsm"):
        assert load_autoencoder(what).digest == autoencoder.digest


def test_the_package_exports_it():
    import smtool

    assert smtool.load_autoencoder is load_autoencoder
    assert smtool.open_tokenizer is open_tokenizer


@pytest.mark.parametrize("name", ["pixels", "control:crop", "squeezenet", "os:getcwd"])
def test_the_error_for_a_tokenizer_that_cannot_be_trained_names_the_commands_that_accept_it(name):
    with pytest.raises(CheckpointError, match=r"but only AutoencoderKL can be opened here[\s\S]*open_tokenizer"):
        load_autoencoder(name)


def test_files_and_folders_are_preferred_to_names_of_other_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert identify("pixels").kind == "pixels"
    write_autoencoder(tmp_path / "pixels" / "ckpt.safetensors", SECTION.build(), {"step": 3})
    found = identify("pixels")
    assert (found.kind, found.place, found.metadata["step"]) == ("trained", "pixels/ckpt.safetensors", 3)


def test_padding_of_a_file_of_smtool_can_be_overridden(tmp_path):
    write_autoencoder(tmp_path / "ckpt.safetensors", SECTION.build(), {})
    assert load_autoencoder(tmp_path, downsample_pad="symmetric").config.downsample_pad == "symmetric"


def test_the_error_for_a_missing_path_names_existing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no such file, folder or run[\s\S]*train-ae"):
        load_autoencoder("dsm")
    write_autoencoder(tmp_path / "runs" / "esm" / "ckpt.safetensors", SECTION.build(), {})
    with pytest.raises(CheckpointError, match=r"There is: runs/esm/ckpt\.safetensors"):
        load_autoencoder("dsm")


def test_a_folder_without_an_autoencoder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no autoencoder"):
        load_autoencoder(tmp_path)


def test_specimens_open_by_name_and_differ_in_dsm_only():
    plain, dsm = (open_tokenizer(f"specimen:{name}") for name in ("plain", "dsm"))
    assert (plain.label, dsm.label) == ("specimen-plain", "specimen-dsm")
    recipes = [dict(one.recipe) for one in (plain, dsm)]
    assert recipes[1]["regularizers"].pop("dsm")["rows_removed"] == [0, 8, 10, 12]
    assert recipes[0] == recipes[1]
    assert plain.digest != dsm.digest
    assert sum(identify(f"specimen:{name}").path.stat().st_size for name in ("plain", "dsm")) < 3e6


def test_specimens_are_float16_files_of_the_recipes_in_the_repository():
    for name in ("plain", "dsm"):
        found = identify(f"specimen:{name}")
        assert {tensor.dtype for tensor in read_tensors(found.path).values()} == {torch.float16}
        assert open_tokenizer(found.name).digest == found.metadata["digest"]
        recipe = load(f"specimen/{name}", TrainAE)
        assert recipe.as_resolved_now(found.metadata["recipe"]) == recipe.resolved()      # written before some keys existed
        assert found.metadata["step"] == found.metadata["recipe"]["steps"]


def test_an_unknown_specimen_is_refused_with_the_names_there_are():
    with pytest.raises(RecipeError, match=r"specimen:esm: no such specimen[\s\S]*specimen:dsm, specimen:plain"):
        open_tokenizer("specimen:esm")


def test_the_wheel_holds_the_specimens_where_they_are_looked_for(tmp_path, monkeypatch):
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    folder = next(target for source, target in included.items() if (ROOT / source / "dsm.safetensors").is_file())
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "dsm.safetensors").write_bytes(identify("specimen:dsm").path.read_bytes())
    monkeypatch.setattr(specimens, "__file__", str(tmp_path / "smtool" / "tokenizers" / "specimens.py"))
    assert identify("specimen:dsm").path == tmp_path / folder / "dsm.safetensors"
    assert specimens.names() == ["dsm"]
