"""Runs of train-ae that start from trained weights: what changes, what stays, what is written at the end."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from smtool.commands.export import export
from smtool.commands.train import training
from smtool.commands.train.comparison import Comparison
from smtool.commands.train.dry_run import dry_run
from smtool.errors import CheckpointError, RecipeError
from smtool.networks.discriminator import PatchGAN
from smtool.networks.taesd import TAESD
from smtool.randomness import initializing
from smtool.recipe import TrainAE, load
from smtool.report.console import Console
from smtool.storage import read_metadata
from smtool.tokenizers import open_tokenizer
from smtool.tokenizers.trainable import open_trainable

RECIPE = """
steps = 4
log_every = 2
evaluate_every = 4
save_every = 2
[data]
train = "data/classes"
validation = "data/classes"
image_size = 32
batch = 4
[model]
init = "runs/tiny"
[optimizer]
lr = 1e-3
warmup = 0
[ema]
decay = 0.5
[validation]
num_images = 12
grid = 4
[tracking]
tensorboard = false
"""


@pytest.fixture
def heal(studio, tmp_path):
    """(name of the run, changes) -> (its folder, what the console said)."""
    (tmp_path / "heal.toml").write_text(RECIPE)

    def run(name: str, *changes: str, **options) -> tuple[Path, str]:
        said = io.StringIO()
        loaded = load(str(tmp_path / "heal.toml"), TrainAE, changes)
        folder = training.train(loaded, console=Console(file=said), out=tmp_path / name, **options)
        return folder, " ".join(said.getvalue().split())

    return run


def _tensors(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(sorted((run / "checkpoints").iterdir())[-1] / f"{name}.safetensors")


def test_with_train_decoder_the_encoder_stays_bit_for_bit_and_nothing_is_kept_for_it(heal):
    run, said = heal("decoder", "train=decoder", "regularizers.dsm={block='fit'}")
    before, after = (open_trainable(what).state_dict() for what in ("runs/tiny", run))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in same} == {"encoder", "quant_conv"}
    assert {name.split(".")[0] for name in before.keys() - same} == {"decoder", "post_quant_conv"}
    learned = {name.removeprefix("autoencoder/autoencoder.").split(".")[0] for name in _tensors(run, "optimizer")}
    averaged = {name.removeprefix("autoencoder/autoencoder.").split(".")[0] for name in _tensors(run, "ema")}
    assert learned == averaged == {"decoder", "post_quant_conv"}
    found = Comparison.model_validate_json((run / "comparison.json").read_text())
    assert found.drift == 0 and found.before.delta == found.after.delta
    assert "training decoder: " in said and "which saves" in said and "latents stay those of runs/tiny" in said
    assert "what changed since runs/tiny: PSNR" in said and "drift 0 % of the latents' variance" in said
    page = (run / "report.html").read_text()
    assert "Before and after" in page and "low-pass gap" in page


def test_the_comparison_measures_both_autoencoders(heal):
    """PSNR and drift, restated."""
    from smtool.data import open_images

    run, said = heal("all")
    found = Comparison.model_validate_json((run / "comparison.json").read_text())
    images = open_images("data/classes", "train", image_size=32).read(range(12)).images
    means = []
    for what, stated in (("runs/tiny", found.before), (run, found.after)):
        opened = open_tokenizer(what)
        mean = opened.encode(images).mean
        decoded = opened.decode(mean).clamp(-1, 1)
        error = ((decoded - images) / 2).square().mean((1, 2, 3))
        assert stated.psnr == pytest.approx((-10 * error.log10()).mean().item(), abs=1e-3)
        means.append(mean)
    moved = (means[1] - means[0]).square().mean((0, 2, 3)) / means[0].var((0, 2, 3))
    assert found.drift == pytest.approx(moved.mean().item(), rel=1e-3) and found.drift > 0
    assert "transformers trained on the latents of runs/tiny will not fit" in said


@pytest.mark.slow
def test_stay_keeps_latents_nearer_than_without(heal):
    drifts = {}
    for name, changes in (("free", []), ("stay", ["regularizers.stay.weight=10"])):
        run, said = heal(name, "steps=12", "optimizer.lr=3e-3", "regularizers.esm={}", *changes)
        drifts[name] = Comparison.model_validate_json((run / "comparison.json").read_text()).drift
    assert drifts["stay"] < 0.5 * drifts["free"]
    assert "[regularizers.stay] keeps its latents near those of runs/tiny" in said


@pytest.mark.slow
def test_a_resumed_fine_tune_equals_an_unbroken_one(heal):
    """With a frozen half, an average, stay and a discriminator that first trains alone."""
    changes = [
        'train=["encoder", "decoder.conv_out.*"]', "regularizers.stay={}", "lr_multipliers.encoder=0.5",
        "discriminator={num_layers=1, channels=4, start=0, alone=2, ramp=4, updates='simultaneous'}", "steps=6",
    ]
    whole, said = heal("whole", *changes)
    assert "the discriminator trains alone for 2 steps, then enters over 4 steps" in said
    heal("paused", *changes, pause_at=2)
    resumed, _ = heal("paused", *changes)
    for name in ("model", "ema", "optimizer"):
        one, two = _tensors(whole, name), _tensors(resumed, name)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("method", [[], ["regularizers.stay={}"]], ids=["init", "stay"])
def test_an_original_that_was_changed_is_noticed_when_the_run_is_resumed(heal, studio, tmp_path, method):
    own = tmp_path / "own.safetensors"
    shutil.copy("runs/tiny/ckpt.safetensors", own)
    changes = [f"model.init={own}", *method]
    heal("changed", *changes, pause_at=2)
    studio.write_autoencoder(own, seed=1)
    with pytest.raises(CheckpointError, match="but its digest is now"):
        heal("changed", *changes)


def test_a_stay_whose_original_was_changed_is_noticed_too(heal, studio, tmp_path):
    own = tmp_path / "own.safetensors"
    shutil.copy("runs/tiny/ckpt.safetensors", own)
    changes = [f"regularizers.stay.original={own}"]
    heal("changed", *changes, pause_at=2)
    studio.write_autoencoder(own, seed=1)
    with pytest.raises(CheckpointError, match="was trained against the original encoder"):
        heal("changed", *changes)


def test_stay_with_unlike_shapes_is_refused_before_anything_is_written(heal, tmp_path):
    with pytest.raises(RecipeError, match=r"has latents \(4, 8, 8\) for images of 32 px and .*, but the model .*\(2, 8, 8\)"):
        heal("unlike", "regularizers.stay.original=specimen:plain")
    assert not (tmp_path / "unlike").exists()


@pytest.mark.slow
def test_a_discriminator_starts_from_a_run_and_from_ldms_names(heal, tmp_path):
    table = "num_layers=1, channels=4, start=0, updates='simultaneous'"
    run, _ = heal("first", f"discriminator={{{table}, alone=0, ramp=0}}")
    theirs = {name.removeprefix("discriminator/layers."): tensor for name, tensor in _tensors(run, "model").items()
              if name.startswith("discriminator/")}
    save_file({f"loss.discriminator.main.{name}": tensor for name, tensor in theirs.items()}, tmp_path / "ldm.safetensors")
    for init in (run, tmp_path / "ldm.safetensors"):
        again, said = heal(f"from-{init.stem}", f"discriminator={{{table}, init='{init}'}}", "optimizer.lr=1e-12", "steps=1")
        assert "discriminator starts from" in said
        found = _tensors(again, "model")
        for name, tensor in theirs.items():
            if name.endswith("weight"):
                torch.testing.assert_close(found[f"discriminator/layers.{name}"], tensor, rtol=0, atol=1e-8)


def test_a_discriminator_of_another_shape_is_refused_with_the_keys_that_fit(heal, tmp_path):
    state = PatchGAN(num_layers=2, channels=8).build().state_dict()
    named = {f"loss.discriminator.main.{name.removeprefix('layers.')}": tensor for name, tensor in state.items()}
    save_file(named, tmp_path / "d.safetensors")
    with pytest.raises(CheckpointError, match="Set num_layers = 2 and channels = 8 in"):
        heal("d", f"discriminator={{num_layers=1, channels=4, start=0, init='{tmp_path / 'd.safetensors'}'}}")
    with pytest.raises(CheckpointError, match="holds no PatchGAN"):
        heal("d", "discriminator={num_layers=1, start=0, init='runs/tiny/ckpt.safetensors'}")
    with pytest.raises(CheckpointError, match="no file and no run with a checkpoint"):
        heal("d", "discriminator={num_layers=1, start=0, init='runs/nowhere'}")


def _sd(tmp_path: Path, dtype: torch.dtype) -> Path:
    """An SD-shaped folder as diffusers writes it, with a scale and a shift."""
    with initializing(0, "sd"):
        made = AutoencoderKL(
            block_out_channels=[8, 8], down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
            latent_channels=4, layers_per_block=1, norm_num_groups=4, scaling_factor=0.4, shift_factor=0.1, sample_size=64,
        )
    made.to(dtype).save_pretrained(tmp_path / "sd")
    return tmp_path / "sd"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_folder_of_diffusers_goes_in_and_the_same_form_comes_out(heal, tmp_path, dtype):
    sd = _sd(tmp_path, dtype)
    run, said = heal("sd-run", f"model.init={sd}", "ema=")
    export(str(run), to="original", out=tmp_path / "out", console=Console(file=io.StringIO()))
    old, new = (load_file(folder / "diffusion_pytorch_model.safetensors") for folder in (sd, tmp_path / "out"))
    assert {n: (t.shape, t.dtype) for n, t in old.items()} == {n: (t.shape, t.dtype) for n, t in new.items()}
    assert not all(torch.equal(old[name], new[name]) for name in old)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (sd, tmp_path / "out"))
    assert {key for key in before if before[key] != after[key]} == {"scaling_factor", "shift_factor"}
    theirs = AutoencoderKL.from_pretrained(tmp_path / "out")
    ours, images = open_tokenizer(run), torch.randn(2, 3, 32, 32)
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 2e-2}      # float16 weights round by 5e-4
    torch.testing.assert_close(theirs.float().encode(images).latent_dist.mean, ours.encode(images).mean, **tolerance)
    assert "latents measured anew on 42 samples: scaling factor" in said
    _assert_measured(ours, after)


def _assert_measured(opened, config):
    """Scale and shift from samples of the posterior, of which the noise differs; 42 x 1024 values give 1 %."""
    from smtool.data import open_images

    posterior = opened.encode(open_images("data/classes", "train", image_size=32).read(range(42)).images)
    latents = posterior.sample(torch.randn_like(posterior.mean))
    assert config["scaling_factor"] == pytest.approx(1 / latents.std().item(), rel=0.03)
    assert config["shift_factor"] == pytest.approx(latents.mean().item(), abs=0.05 * latents.std().item())


def test_with_a_frozen_encoder_the_published_factors_are_kept(heal, tmp_path):
    sd = _sd(tmp_path, torch.float32)
    run, _ = heal("sd-run", f"model.init={sd}", "train=decoder")
    export(str(run), to="original", out=tmp_path / "out", console=Console(file=io.StringIO()))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["scaling_factor"] == pytest.approx(0.4) and config["shift_factor"] == pytest.approx(0.1)


def test_the_batch_norm_of_flux2_is_measured_anew_on_patches(heal, tmp_path):
    with initializing(0, "flux2"):
        made = AutoencoderKLFlux2(
            block_out_channels=[8, 8], down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
            latent_channels=4, layers_per_block=1, norm_num_groups=4,
        )
    made.save_pretrained(tmp_path / "flux2")
    run, _ = heal("flux2-run", f"model.init={tmp_path / 'flux2'}", "ema=")
    export(str(run), to="original", out=tmp_path / "out", console=Console(file=io.StringIO()))
    again = AutoencoderKLFlux2.from_pretrained(tmp_path / "out")
    from smtool.data import open_images

    posterior = open_tokenizer(run).encode(open_images("data/classes", "train", image_size=32).read(range(42)).images)
    patches = F.pixel_unshuffle(posterior.sample(torch.randn_like(posterior.mean)), 2)
    torch.testing.assert_close(again.bn.running_mean, patches.mean((0, 2, 3)), rtol=0, atol=0.1)
    torch.testing.assert_close(again.bn.running_var, patches.var((0, 2, 3)), rtol=0.15, atol=0)


def test_taesd_trains_and_goes_back_into_its_two_files(heal, tmp_path):
    with initializing(0, "taesd"):
        state = TAESD(width=8).build().state_dict()
    for half in ("encoder", "decoder"):
        part = {name.removeprefix(f"{half}."): t.half() for name, t in state.items() if name.startswith(f"{half}.")}
        torch.save(part, tmp_path / f"taesd_{half}.pth")
    run, _ = heal("tiny", f"model.init={tmp_path / 'taesd_encoder.pth'}", "train=last-layers")
    export(str(run), to="original", out=tmp_path / "out", console=Console(file=io.StringIO()))
    again = open_tokenizer(tmp_path / "out" / "taesd_decoder.safetensors").state_dict()
    changed = {name for name in state if not torch.equal(state[name].half().float(), again[name])}
    assert changed and changed <= set(TAESD(width=8).build().part("last-layers"))
    assert {t.dtype for t in load_file(tmp_path / "out" / "taesd_encoder.safetensors").values()} == {torch.float16}


@pytest.mark.slow
def test_an_original_that_is_gone_and_a_run_without_one_are_said(heal, tmp_path):
    quiet = Console(file=io.StringIO())
    run, _ = heal("own")
    with pytest.raises(CheckpointError, match="states no original"):
        export(str(run), to="original", out=tmp_path / "out", console=quiet)
    sd = _sd(tmp_path, torch.float32)
    run, _ = heal("gone", f"model.init={sd}", "steps=1")
    shutil.rmtree(sd)
    with pytest.raises(CheckpointError, match=r"cannot be found any more: .*sd: no such file"):
        export(str(run), to="original", out=tmp_path / "out", console=quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_descendant_of_a_fine_tune_still_knows_the_original(heal, tmp_path):
    sd = _sd(tmp_path, torch.float32)
    first, _ = heal("first", f"model.init={sd}", "steps=1")
    second, _ = heal("second", f"model.init={first}", "steps=1")
    origins = [read_metadata(run / "ckpt.safetensors")["origin"] for run in (first, second)]
    assert origins[0] == origins[1] and origins[0]["place"] == str(sd)


def test_a_dry_run_says_what_trains_and_times_all_of_it_beside(heal, tmp_path):
    said = io.StringIO()
    loaded = load(str(tmp_path / "heal.toml"), TrainAE, ["train=decoder"])
    dry_run(loaded, console=Console(file=said))
    shown = " ".join(said.getvalue().split())
    assert "training decoder:" in shown and 'for comparison, train = "all": step' in shown
