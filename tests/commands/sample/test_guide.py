"""`smtool sample RUN --guide WEAKER --cfg-scale W`: autoguidance between two checkpoints."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from smtool.data.batches import to_uint8
from smtool.errors import CheckpointError
from smtool.inference.diffusion_model import read_diffusion
from smtool.inference.guide import guided_by
from smtool.randomness import generator, noise_of
from smtool.storage import read_metadata, read_tensors, write_tensors

STEPS, SCALE = 4, 2.0


def pixels_of(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("0*.png"))]).astype(int)


@pytest.fixture(scope="module")
def trained(_studio, finished, tmp_path_factory):
    """Runs of the studio that share its latents: of fewer steps, without classes, and of other processes, statistics, latents."""
    folder = tmp_path_factory.mktemp("guides")
    known = {
        "weak": ["steps=2"],
        "free": ["steps=2", "labels="],
        "other-time": ["steps=1", "process.kind=flow", "process.time=logit-normal"],
        "x": ["steps=1", "process.kind=flow", "process.prediction=x"], "ddpm": ["steps=1", "process.kind=ddpm"],
        "scalar": ["steps=1", "latents.stats=scalar"], "other": ["steps=1", "latents.autoencoder=runs/another"],
    }

    def train(name):
        if not (folder / name).exists():
            _studio.train(folder / name, *known[name])
        return folder / name

    return train


@pytest.fixture
def another(studio):
    """An autoencoder with the latent shape of runs/tiny and other weights."""
    studio.write_autoencoder(studio.folder / "runs" / "another" / "ckpt.safetensors", 1)


def arguments(finished, out, *more):
    return ["sample", str(finished), "--num-images", "3", "--seed", "5", "--out", str(out), *more]


@pytest.mark.parametrize("name", ["weak", "free"])
def test_guided_images_are_those_of_eulers_steps_written_out(studio, finished, trained, command, tmp_path, name):
    """x <- x + dt (bad + w (good - bad)), each network by itself; the guide without classes gets no labels."""
    weak = trained(name)
    said = command(*arguments(finished, tmp_path / "out", "--guide", str(weak), "--cfg-scale", str(SCALE)))
    assert said[0] == 0, said
    strong, guide = (read_diffusion(run / "ckpt.safetensors") for run in (finished, weak))
    x = noise_of([generator("sample", 5, index) for index in range(3)], (2, 8, 8)).double()
    labels = torch.arange(3)
    for step in range(STEPS):
        time = torch.full((3,), 1 - step / STEPS)
        good = strong.network(x.float(), time, labels).output.double()
        bad = guide.network(x.float(), time, labels if name == "weak" else None).output.double()
        x = x - (bad + SCALE * (good - bad)) / STEPS
    expected = to_uint8(strong.autoencoder.decode(strong.stats.denormalize(x.float()))).permute(0, 2, 3, 1).numpy()
    found = pixels_of(tmp_path / "out")
    assert np.abs(found - expected).max() <= 1
    assert command(*arguments(finished, tmp_path / "free"))[0] == 0
    assert np.abs(found - pixels_of(tmp_path / "free")).mean() > 0.05
    passport = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert passport["guide"] == {"path": str(weak), "digest": guide.metadata["digest"], "step": 2, "learned_from": []}
    assert passport["sampler"]["cfg_scale"] == SCALE
    assert "guide" not in json.loads((tmp_path / "free" / "samples.json").read_text())


def test_a_guide_of_other_training_times_is_taken_and_interval_and_channels_work(studio, finished, trained, command, tmp_path):
    guide = str(trained("other-time"))
    options = ["--guide", guide, "--cfg-scale", "3", "--cfg-interval", "0.3", "0.8", "--cfg-channels", "1"]
    assert command(*arguments(finished, tmp_path / "out", *options))[0] == 0
    model = guided_by(read_diffusion(finished / "ckpt.safetensors"), guide)
    sampler = model.tables.sampler.model_copy(update={"cfg_scale": 3.0, "cfg_interval": (0.3, 0.8), "cfg_channels": 1})
    predict = sampler.model(model.process, model.network, labels=torch.arange(2), null=3, guide=model.guide)
    x, labels = torch.randn(2, 2, 8, 8), torch.arange(2)
    for t, guided in ((0.9, False), (0.5, True), (0.1, False)):
        time = torch.full((2,), t)
        good, bad = (network(x, time, labels).output for network in (model.network, model.guide.network))
        expected = torch.cat([bad + 3 * (good - bad) if guided else good, good], 1)[:, [0, 3]]
        torch.testing.assert_close(predict(x, time), expected)


def test_the_default_folder_names_the_guide_and_a_folder_is_not_continued_without_it(
    studio, finished, trained, command, tmp_path
):
    (tmp_path / "run").mkdir()
    shutil.copy(finished / "ckpt.safetensors", tmp_path / "run")
    guide = ["--guide", str(trained("weak")), "--cfg-scale", "1.5"]
    assert command("sample", str(tmp_path / "run"), "--num-images", "2", *guide)[0] == 0
    digest = read_metadata(trained("weak") / "ckpt.safetensors")["digest"]
    place = tmp_path / "run" / f"samples-euler-4-cfg1.5-seed0-2-balanced-png-guide-{digest[:8]}"
    assert place.is_dir()
    options = ["--num-images", "2", "--cfg-scale", "1.5", "--out", str(place)]
    code, _, err = command("sample", str(tmp_path / "run"), *options)
    assert (code, "other settings (guide differ)" in err) == (2, True), err


def test_eval_draws_with_the_guide_and_says_so(studio, finished, trained, command, tmp_path):
    options = ["--num-images", "12", "--features", "random", "--json", str(tmp_path / "scores.json"), "--seed", "5"]
    guide = ["--guide", str(trained("weak")), "--cfg-scale", "2"]
    code, text, err = command("eval", str(finished), *options, *guide)
    assert code == 0, err
    digest = read_metadata(trained("weak") / "ckpt.safetensors")["digest"]
    assert f"guidance 2 by {trained('weak')} ({digest[:8]})" in " ".join(text.split())
    score = json.loads((tmp_path / "scores.json").read_text())["scores"]["fd_random"]
    assert score["passport"]["sampling"]["guide"]["digest"] == digest
    code, text, err = command("eval", str(finished), *options)
    plain = json.loads((tmp_path / "scores.json").read_text())["scores"]["fd_random"]
    assert plain["value"] != score["value"] and "guide" not in plain["passport"]["sampling"]


@pytest.mark.parametrize(("name", "sentence"), [
    ("x", "its process has prediction = x (here v)"),
    ("ddpm", "its process has kind = ddpm (here flow)"),
    ("scalar", "its latents are normalized by other statistics (scalar, here channel)"),
    ("other", "its latents are of another autoencoder"),
])
def test_a_guide_of_another_kind_is_refused(studio, another, finished, trained, command, tmp_path, name, sentence):
    code, _, err = command(*arguments(finished, tmp_path / "out", "--guide", str(trained(name)), "--cfg-scale", "2"))
    said = " ".join(err.split())
    assert (code, "cannot guide this transformer" in said, sentence in said, "Traceback" in said) == (3, True, True, False), err
    assert not (tmp_path / "out").exists()


def test_a_guide_of_other_latents_or_classes_is_refused(studio, finished, trained, tmp_path):
    model = read_diffusion(finished / "ckpt.safetensors")
    tensors, metadata = read_tensors(trained("weak") / "ckpt.safetensors"), read_metadata(trained("weak") / "ckpt.safetensors")
    tensors["network.y_embedder.embedding_table.weight"] = torch.zeros(6, 32)
    write_tensors(tmp_path / "five.safetensors", tensors, {**metadata, "num_classes": 5})
    with pytest.raises(CheckpointError, match="it has 5 classes, not 3"):
        guided_by(model, str(tmp_path / "five.safetensors"))
    write_tensors(tmp_path / "wide.safetensors", {**tensors, "network.pos_embed": torch.zeros(1, 32, 32)},
                  {**metadata, "num_classes": 5, "latent_shape": [2, 8, 16]})
    with pytest.raises(CheckpointError, match="its latents are 2x8x16, not 2x8x8"):
        guided_by(model, str(tmp_path / "wide.safetensors"))


def test_a_guide_without_effect_is_refused(studio, finished, trained, command, tmp_path):
    for options, exit_code, sentence in (
        (["--guide", str(trained("weak"))], 2, "--guide has no effect without guidance: the scale is 1. Add --cfg-scale"),
        (["--guide", str(finished), "--cfg-scale", "2"], 3, "has the weights of the transformer that it is to guide"),
        (["--guide", "runs/none", "--cfg-scale", "2"], 3, "runs/none: no checkpoint here"),
        (["--guide", "runs/tiny", "--cfg-scale", "2"], 3, "but a diffusion transformer is needed"),
    ):
        code, _, err = command(*arguments(finished, tmp_path / "out", *options))
        said = " ".join(err.split())
        assert (code, sentence in said, "Traceback" in said) == (exit_code, True, False), err
        assert not (tmp_path / "out").exists()


def test_a_network_without_classes_can_be_guided(studio, finished, trained, command, tmp_path):
    """By another one without classes, but not by one with classes."""
    strong, weak = trained("free"), tmp_path / "weaker"
    studio.train(weak, "labels=", "steps=1")
    out = arguments(strong, tmp_path / "out", "--cfg-scale", "2")
    assert command(*out)[0] == 2      # no null class
    assert command(*out, "--guide", str(weak))[0] == 0
    code, _, err = command(*arguments(strong, tmp_path / "no", "--cfg-scale", "2", "--guide", str(finished)))
    assert (code, "it has 3 classes, not 0" in err) == (3, True), err
