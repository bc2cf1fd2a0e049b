"""`smtool sample` on the command line: formats, interruptions, ranks, errors."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
import warm_process
from PIL import Image

from smtool.commands.sample import files
from smtool.commands.sample import samples as pipeline

SINGLE_THREADED = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(files, "PART", 8)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pixels_of(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("0*.png"))]).astype(int)


def test_sampling_writes_images_a_grid_labels_and_a_passport(studio, finished, command, tmp_path):
    code, out, err = command("sample", str(finished), "--num-images", "9", "--out", str(tmp_path / "out"), "--seed", "4")
    assert code == 0, err
    assert str(tmp_path / "out") in out
    names = {f"{index:06d}.png" for index in range(9)} | {"grid.png", "labels.json", "samples.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == [0, 1, 2] * 3
    assert Image.open(tmp_path / "out" / "000000.png").size == (32, 32)
    assert Image.open(tmp_path / "out" / "grid.png").size == (3 * 33 - 1, 3 * 33 - 1)
    passport = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert (passport["sampler"]["kind"], passport["sampler"]["steps"], passport["seed"], passport["step"]) == ("euler", 4, 4, 8)


def test_all_formats_hold_the_same_pictures(studio, finished, command, tmp_path):
    for kind in ("png", "shards", "npz"):
        code, _, err = command("sample", str(finished), "--num-images", "6", "--out", str(tmp_path / kind), "--format", kind)
        assert code == 0, err
    expected = pixels_of(tmp_path / "png")
    with np.load(tmp_path / "npz" / "samples.npz") as archive:
        assert np.array_equal(archive["arr_0"], expected)
        assert archive["arr_1"].tolist() == [0, 1, 2, 0, 1, 2]
    subprocess.run(["tar", "-xf", str(tmp_path / "shards" / "samples-000000.tar"), "-C", str(tmp_path / "shards")], check=True)
    assert np.array_equal(pixels_of(tmp_path / "shards"), expected)


@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_files_are_those_that_pillow_writes_at_that_quality(studio, finished, command, tmp_path, quality):
    for kind in ("png", f"jpeg:{quality}"):
        out = str(tmp_path / kind.replace(":", ""))
        code, _, err = command("sample", str(finished), "--num-images", "4", "--out", out, "--format", kind)
        assert code == 0, err
    folder = tmp_path / f"jpeg{quality}"
    assert {path.name for path in folder.glob("0*")} == {f"{index:06d}.jpg" for index in range(4)}
    for index in range(4):
        Image.open(tmp_path / "png" / f"{index:06d}.png").save(tmp_path / "own.jpg", quality=quality)
        assert (folder / f"{index:06d}.jpg").read_bytes() == (tmp_path / "own.jpg").read_bytes()
    assert json.loads((folder / "samples.json").read_text())["format"] == f"jpeg:{quality}"
    assert (folder / "labels.json").is_file() and (folder / "grid.png").is_file()


@pytest.mark.parametrize("kind", ["png", "jpeg:75", "shards", "npz"])
def test_missing_parts_are_drawn_again_and_give_the_same_files(studio, finished, command, tmp_path, small_parts, kind):
    arguments = ["sample", str(finished), "--num-images", "20", "--out", str(tmp_path / "out"), "--format", kind]
    arguments += ["--sampler", "euler-maruyama", "--steps", "3"]
    assert command(*arguments)[0] == 0
    before = contents(tmp_path / "out")
    lost = {
        "png": ["000003.png", "000019.png", "labels.json"],
        "jpeg:75": ["000003.jpg"],
        "shards": ["samples-000001.tar"],
        "npz": ["samples.npz"],
    }[kind]
    for name in lost:
        (tmp_path / "out" / name).unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    code, _, err = command(*arguments, "--batch", "8")
    assert code == 0, err
    assert contents(tmp_path / "out") == before
    untouched = {"png": "000012.png", "jpeg:75": "000012.jpg", "shards": "samples-000002.tar", "npz": "samples.json"}[kind]
    assert (tmp_path / "out" / untouched).stat().st_mtime_ns == kept[untouched]


def test_pictures_and_their_classes_do_not_depend_on_the_size_of_parts(studio, finished, command, tmp_path, monkeypatch):
    arguments = ["sample", str(finished), "--num-images", "20", "--cfg-scale", "4"]
    assert command(*arguments, "--out", str(tmp_path / "whole"))[0] == 0
    monkeypatch.setattr(files, "PART", 8)
    assert command(*arguments, "--out", str(tmp_path / "parts"))[0] == 0
    difference = np.abs(pixels_of(tmp_path / "whole") - pixels_of(tmp_path / "parts"))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_other_settings_in_the_same_folder_are_an_error_and_finished_samples_are_kept(
    studio, finished, command, tmp_path, monkeypatch
):
    arguments = ["sample", str(finished), "--num-images", "3", "--out", str(tmp_path / "out")]
    assert command(*arguments)[0] == 0
    before = contents(tmp_path / "out")
    for changes, key in ((["--sampler", "heun"], "sampler"), (["--seed", "1"], "seed"), (["--labels", "1"], "labels")):
        code, _, err = command(*arguments, *changes)
        assert (code, "Traceback" in err) == (2, False)
        assert f"holds samples with other settings ({key} differ)" in err
        assert "Choose another --out" in err
    monkeypatch.setattr(pipeline, "generate", None)
    assert command(*arguments)[0] == 0
    assert contents(tmp_path / "out") == before


def test_the_default_folder_is_next_to_the_checkpoint_and_named_after_the_sampler(
    studio, finished, command, tmp_path, monkeypatch
):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    shutil.copy(finished / "ckpt.safetensors", tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    assert command("sample", "mine", "--num-images", "2", "--cfg-scale", "1.5", "--steps", "2")[0] == 0
    assert (tmp_path / "runs" / "mine" / "samples-euler-2-cfg1.5-seed0-2-balanced-png" / "000001.png").exists()


@pytest.mark.slow
def test_sixty_four_images_on_two_ranks_are_those_of_one(studio, finished, command, tmp_path):
    """More than one part of 16 images, so that both ranks draw."""
    arguments = ["sample", str(finished), "--num-images", "64", "--steps", "4", "--trace"]
    assert command(*arguments, "--out", str(tmp_path / "one"))[0] == 0
    two = warm_process.run(*arguments, "--out", tmp_path / "two", "--batch", "16", ranks=2)
    assert two.returncode == 0, two.stderr[-2000:]
    assert contents(tmp_path / "one").keys() == contents(tmp_path / "two").keys()
    difference = np.abs(pixels_of(tmp_path / "one") - pixels_of(tmp_path / "two"))
    assert len(difference) == 64
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    one, two = (json.loads((tmp_path / name / "trace.json").read_text()) for name in ("one", "two"))
    assert one["images"] == two["images"] == 16      # traced on one rank
    assert one["times"] == two["times"]
    for domain in ("pixels", "latents"):
        np.testing.assert_allclose(one[domain]["final_power"], two[domain]["final_power"], rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--labels", "0,3"], 2, "3 is not one of this model's classes 0 ... 2"),
        (["--labels", "cats"], 2, "expected balanced, random, or numbers"),
        (["--sampler", "magic"], 2, "kind: must be 'ddim'"),
        (["--cfg-scale", "0.5"], 2, "cfg_scale: must be at least 1"),
        (["--cfg-interval", "0.9", "0.1"], 2, "cfg_interval: must be two times"),
    ],
)
def test_bad_options_are_one_sentence_and_write_nothing(studio, finished, command, tmp_path, arguments, code, words):
    found, _, err = command("sample", str(finished), "--out", str(tmp_path / "out"), *arguments)
    assert (found, words in err, "Traceback" in err) == (code, True, False), err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("runs/tiny", "holds kind 'autoencoder', but a diffusion transformer is needed"),
        ("nowhere", "no checkpoint here"),
        ("dit.toml", "is not a readable safetensors file"),
    ],
)
def test_files_of_another_kind_have_exit_code_three(studio, command, what, words):
    code, _, err = command("sample", what)
    assert (code, words in err, "Traceback" in err) == (3, True, False), err


def test_a_diffusion_checkpoint_instead_of_an_autoencoder_has_exit_code_three(studio, finished, command, tmp_path):
    code, _, err = command("export", str(finished), "--out", str(tmp_path / "exported"))
    assert (code, "Traceback" in err) == (3, False)
    assert "holds kind 'diffusion', but an autoencoder is needed" in err


def test_guidance_of_more_channels_than_there_are_is_refused(finished, command, tmp_path):
    arguments = ["sample", str(finished), "--num-images", "2", "--out", str(tmp_path / "out"), "--cfg-channels"]
    code, _, said = command(*arguments, "99", "--cfg-scale", "2")
    assert code == 2 and "cfg_channels: must be at most 2, the channels of the latents, but is 99" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "idle"), [
    (["--cfg-channels", "1"], "--cfg-channels has"),
    (["--cfg-interval", "0.1", "0.6"], "--cfg-interval has"),
    (["--cfg-interval", "0", "1", "--cfg-channels", "0", "--cfg-scale", "1"], "--cfg-interval and --cfg-channels have"),
])
def test_options_of_guidance_without_guidance_are_refused(finished, command, tmp_path, options, idle):
    code, _, said = command("sample", str(finished), "--num-images", "2", "--out", str(tmp_path / "out"), *options)
    assert (code, "Traceback" in said) == (2, False)
    assert f"{idle} no effect without guidance: the scale is 1." in said and "Add --cfg-scale" in said
    assert not (tmp_path / "out").exists()


def test_epsilon_scaling_changes_the_images_their_folder_and_their_passport(finished, command, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    for options in ([], ["--epsilon-scale", "1.2"], ["--epsilon-scale", "1"]):
        code, _, said = command("sample", str(tmp_path / "run"), "--num-images", "2", *options)
        assert code == 0, said
    plain, scaled = sorted((tmp_path / "run").glob("samples-*"), key=lambda folder: len(folder.name))
    assert scaled.name == f"{plain.name}-eps1.2"
    assert np.abs(pixels_of(plain) - pixels_of(scaled)).max() > 0
    passports = [json.loads((folder / "samples.json").read_text())["sampler"] for folder in (plain, scaled)]
    assert passports[1] == {**passports[0], "epsilon_scale": 1.2} and "epsilon_scale" not in passports[0]
    for value, words in (("0", "must be greater than 0"), ("nan", "input should be a finite number")):
        code, _, said = command("sample", str(finished), "--epsilon-scale", value)
        assert code == 2 and f"epsilon_scale: {words}" in said
    code, _, said = command("sample", str(finished), "--epsilon-scale", "1.1", "--steps", "1")
    assert code == 2 and "epsilon_scale: must be 1 for a flow with steps = 1, but is 1.1: no step begins at" in said


def test_precision_changes_the_folder_and_the_passport_and_is_not_mixed(finished, command, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "run")
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    for options in ([], ["--precision", "bf16", "--compile"], ["--precision", "auto"]):
        code, _, said = command("sample", str(tmp_path / "run"), "--num-images", "2", *options)
        assert code == 0, said
    plain, half = sorted((tmp_path / "run").glob("samples-*"), key=lambda folder: len(folder.name))
    assert half.name == f"{plain.name}-bf16" and set(compiled) == {"SiTBlock"}
    passports = [json.loads((folder / "samples.json").read_text())["sampler"] for folder in (plain, half)]
    assert passports[1] == {**passports[0], "precision": "bf16"} and "precision" not in passports[0]
    code, _, said = command("sample", str(tmp_path / "run"), "--num-images", "2", "--out", str(half))
    assert code == 2 and "other settings (sampler differ)" in said
    code, _, said = command("sample", str(tmp_path / "run"), "--precision", "int8")
    assert code == 2 and "int8" in said
