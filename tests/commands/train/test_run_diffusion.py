"""Runs of train-dit, assembled in this process: batches, teachers, resuming, errors."""

import functools
import hashlib
import json
import shutil
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
from safetensors.torch import load_file

from smtool import load_autoencoder
from smtool.checkpoints import write_autoencoder
from smtool.commands.prepare.features import prepare_features
from smtool.commands.prepare.images import prepare
from smtool.commands.train.run_diffusion import diffusion_run
from smtool.commands.train.run_folder import RunFolder
from smtool.data import open_images
from smtool.errors import CheckpointError, DataError, RecipeError
from smtool.features.teachers import load_teacher
from smtool.inference.diffusion_model import read_diffusion
from smtool.networks.transformer import position_table
from smtool.recipe import TrainDiT, load
from smtool.storage import read_metadata, write_tensors
from smtool.training.distributed import Ranks

METHODS = {
    "repa": ["alignment.hidden=16"],
    "irepa": [],
    "repa-dog": ["alignment.sigma1=0.5", "alignment.sigma2=2"],
}


@pytest.fixture(scope="module")
def _teachers():
    """Teachers, loaded once, since they are frozen."""
    return functools.cache(load_teacher)


@pytest.fixture(autouse=True)
def _teachers_are_loaded_once(_teachers, monkeypatch):
    for place in ("train.aligned", "prepare.features"):
        monkeypatch.setattr(f"smtool.commands.{place}.load_teacher", _teachers)
    monkeypatch.setattr("smtool.commands.train.teacher_summary.NUM_IMAGES", 8)


def assembled(studio, *changes, ranks=None, weights_dir=None):
    ranks = ranks or Ranks(0, 1, "cpu")
    return diffusion_run(load(studio.recipe, TrainDiT, changes), RunFolder(Path("runs/none")), ranks, weights_dir)


def batches_of(run, count, first=0):
    with closing(run.batches(first)) as batches:
        return list(islice(batches, count))


def aligned(kind: str, teacher: str) -> list[str]:
    return [f"alignment.kind={kind}", f"alignment.teacher={teacher}", "alignment.depth=1", *METHODS[kind]]


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["squeezenet", "timm:vit_tiny_patch16_224"])
@pytest.mark.parametrize("kind", METHODS)
def test_a_resumed_aligned_run_equals_an_unbroken_one_bit_for_bit(studio, weights, tmp_path, kind, teacher, state_of, rows_of):
    changes = [*aligned(kind, teacher), "save_every=2"]
    whole = studio.train(tmp_path / "whole", *changes, "steps=4", weights_dir=weights)
    broken = studio.train(tmp_path / "broken", *changes, "steps=2", weights_dir=weights)
    studio.train(broken, *changes, "steps=4", weights_dir=weights)
    expected, found = state_of(whole), state_of(broken)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    rows = [row for row in rows_of(whole) if "alignment" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["alignment"] < rows[0]["alignment"]
    assert not [name for name in expected if "teacher" in name]
    assert not [name for name in load_file(whole / "ckpt.safetensors") if "alignment" in name]


def test_a_run_records_its_teacher_and_resumes_only_with_the_same_weights(studio, weights, tmp_path):
    changes = [*aligned("irepa", "squeezenet"), "save_every=2"]
    folder = studio.train(tmp_path / "run", *changes, "steps=2", weights_dir=weights)
    metadata = read_metadata(folder / "ckpt.safetensors")
    assert (metadata["learned_from"], metadata["autoencoder"]["learned_from"]) == (["squeezenet"], [])
    frozen = json.loads((folder / "checkpoints/00000002/state.json").read_text())["frozen"]
    file = "squeezenet1_1_torchvision_fp16.pth"
    assert frozen == {"squeezenet": hashlib.sha256((weights / file).read_bytes()).hexdigest()}
    other = tmp_path / "weights"
    other.mkdir()
    torch.save({name: 2 * value for name, value in torch.load(weights / file).items()}, other / file)
    said = f"squeezenet with digest {frozen['squeezenet']}, but the digest of squeezenet is now "
    with pytest.raises(CheckpointError, match=said):
        studio.train(folder, *changes, "steps=4", weights_dir=other)
    studio.train(folder, *changes, "steps=4", weights_dir=weights)


def test_a_resumed_run_keeps_its_statistics(studio, tmp_path):
    """Earlier versions subtracted the mean of scalar statistics; a run started so must keep its latents."""
    changes = ["latents.stats=scalar", "save_every=2"]
    folder = studio.train(tmp_path / "run", *changes, "steps=2")
    metadata, tensors = read_metadata(folder / "ckpt.safetensors"), load_file(folder / "ckpt.safetensors")
    (left,), (std,) = metadata["stats"].pop("residual"), metadata["stats"]["std"]
    assert left != 0
    metadata["stats"]["mean"] = [left * std]
    write_tensors(folder / "ckpt.safetensors", tensors, metadata)
    studio.train(folder, *changes, "steps=4")
    after = read_metadata(folder / "ckpt.safetensors")
    assert after["step"] == 4
    assert after["stats"]["mean"] == pytest.approx([left * std]) and after["stats"]["residual"] == [0.0]
    studio.train(tmp_path / "new", *changes, "steps=2")
    assert read_metadata(tmp_path / "new/ckpt.safetensors")["stats"]["mean"] == [0.0]


def test_a_spectral_run_sees_and_stores_white_latents_and_resumes_with_its_filter(studio, tmp_path):
    changes = ["latents.stats=spectral", "latents.flatten=white", "save_every=2"]
    folder = studio.train(tmp_path / "run", *changes, "steps=2")
    stored = read_diffusion(folder / "ckpt.safetensors").stats
    run = assembled(studio, *changes)
    (batch,) = batches_of(run, 1)
    assert torch.equal(run.training.task.stats.normalize(batch.mean), stored.normalize(batch.mean))
    pictures = open_images("data/classes", "train", image_size=32).read(range(42)).images
    with torch.no_grad():
        posterior = load_autoencoder("runs/tiny").encode(pictures)
    latents = posterior.sample(torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0)))
    cells = scipy.fft.dctn(stored.normalize(latents).numpy(), axes=(-2, -1), norm="ortho")
    radius = np.hypot(*np.mgrid[:8, :8])
    bands = [(cells[..., (radius > low) & (radius <= low + 2)] ** 2).mean() for low in (0, 2, 4, 6)]
    assert bands == pytest.approx([1.0] * 4, abs=0.15)
    metadata, tensors = read_metadata(folder / "ckpt.safetensors"), load_file(folder / "ckpt.safetensors")
    metadata["stats"]["recolouring"]["gains"][0][3] *= 1.001
    write_tensors(folder / "ckpt.safetensors", tensors, metadata)
    studio.train(folder, *changes, "steps=4")
    after = read_metadata(folder / "ckpt.safetensors")
    assert (after["step"], after["stats"]) == (4, metadata["stats"])
    with pytest.raises(RecipeError, match=r"latents\.flatten"):
        studio.train(folder, *changes, "latents.flatten=1", "steps=6")


def test_online_and_cached_runs_have_the_same_filter(studio):
    changes = ["latents.stats=spectral", "latents.flatten=1", "latents.dtype=fp32"]
    cached, online = (assembled(studio, *changes, f"latents.online={value}").training.task.stats for value in ("false", "true"))
    assert cached.recolouring.flatten == online.recolouring.flatten == 1.0
    torch.testing.assert_close(cached.recolouring.gains, online.recolouring.gains, rtol=1e-4, atol=0)


def test_a_law_that_needs_more_cells_is_refused_before_anything_is_encoded(studio, tmp_path):
    pictures = prepare("builtin:photos?train=8&val=2", out=tmp_path / "small", size=16, workers=1)
    changes = ["latents.stats=spectral", "latents.flatten=1", f"data.train={pictures}", "data.image_size=16", "labels="]
    with pytest.raises(RecipeError, match=r"dit\.toml: latents: flatten = 1.0 needs latents of at least 8x8 cells, not 4x4; .wh"):
        assembled(studio, *changes)
    assert not list(Path("data/latents").glob("small-*"))


def test_a_run_cannot_be_resumed_with_another_autoencoder(studio, tmp_path):
    place = tmp_path / "ae.safetensors"
    studio.write_autoencoder(place, 0)
    changes = [f"latents.autoencoder={place}", "save_every=2"]
    folder = studio.train(tmp_path / "run", *changes, "steps=2")
    studio.write_autoencoder(place, 1)
    with pytest.raises(CheckpointError, match=r"ae\.safetensors is not the autoencoder that .*run was started with"):
        studio.train(folder, *changes, "steps=4")
    assert read_metadata(folder / "ckpt.safetensors")["step"] == 2


@pytest.mark.parametrize("teacher", ["squeezenet", "timm:vit_tiny_patch16_224"])
@pytest.mark.parametrize("kind", METHODS)
def test_the_alignment_has_gradients_only_in_blocks_up_to_its_depth_and_the_projector(studio, weights, kind, teacher):
    run = assembled(studio, *aligned(kind, teacher), weights_dir=weights)
    task = run.training.task
    (batch,) = batches_of(run, 1)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():      # at initialization SiT's blocks are the identity, without gradients for their inner layers
        for parameter in task.network.blocks.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws), alpha=0.02)
    x = torch.randn((8, 2, 8, 8), generator=draws)
    tokens = task.network(x, torch.full((8,), 0.5), batch.labels, tap=task.alignment.depth).tokens
    task.alignment.module(tokens, task.teacher(batch.images)).backward()
    felt = {name for name, p in task.network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert {"blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "x_embedder.proj.weight"} <= felt
    assert not [name for name in felt if name.startswith(("blocks.1", "final_layer"))]
    assert all(p.grad.abs().max() > 0 for p in task.alignment.module.parameters())
    assert not list(task.teacher.parameters())


@pytest.fixture
def own_features(studio, weights, monkeypatch):
    """own_features(dtype, ...): a cache of SqueezeNet's features of data/classes, in its default folder until the test ends."""
    made = []

    def make(dtype="fp32", **settings):
        made.append(
            prepare_features(
                "squeezenet", data="data/classes", tokens=(4, 4), dtype=dtype, weights_dir=weights, workers=1, **settings
            )
        )
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("changes", [[], ["latents.online=true"], ["data.flip=false"], ["warmup.steps=2", "warmup.cutoff=0.1"]])
def test_cached_features_give_the_same_losses_as_the_teacher(studio, weights, own_features, changes):
    changes = [*aligned("repa-dog", "squeezenet"), "latents.dtype=fp32", *changes]
    online = assembled(studio, *changes, weights_dir=weights)
    folder = own_features("fp32")
    cached = assembled(studio, *changes, weights_dir=weights)
    assert online.training.task.teacher is not None and cached.training.task.teacher is None
    assert "computed while training" in online.summary[2] and "--features squeezenet --tokens 4x4" in online.summary[2]
    assert f"cached in {folder} (fp32)" in cached.summary[2]
    assert online.summary[3:] == cached.summary[3:]      # the measures of the features
    for ours, theirs in zip(islice(cached.reports(0), 4), islice(online.reports(0), 4), strict=True):
        for name in ("alignment", "diffusion"):
            torch.testing.assert_close(ours.values[name], theirs.values[name], rtol=1e-5, atol=1e-6)


def test_a_bf16_cache_changes_features_by_at_most_a_256th(studio, weights, own_features):
    changes = aligned("repa", "squeezenet")
    online = assembled(studio, *changes, weights_dir=weights)
    own_features("bf16")
    cached = assembled(studio, *changes, weights_dir=weights)
    ours, theirs = (next(islice(run.reports(0), 1)).values["alignment"] for run in (cached, online))
    assert 0 < (ours - theirs).abs() < 1e-3
    whole = own_features("fp32")
    assert str(whole) in assembled(studio, *changes, weights_dir=weights).summary[2]      # the fp32 cache is preferred
    assert "computed while training" in assembled(studio, *changes, "alignment.features=online", weights_dir=weights).summary[2]


@pytest.mark.slow
def test_a_resumed_run_uses_the_same_source_of_features(studio, weights, own_features, tmp_path, state_of):
    changes = [*aligned("irepa", "squeezenet"), "save_every=2"]
    whole = studio.train(tmp_path / "whole", *changes, "steps=4", weights_dir=weights)
    broken = studio.train(tmp_path / "broken", *changes, "steps=2", weights_dir=weights)
    folder = own_features("bf16")      # written meanwhile, but not used: its features are rounded
    studio.train(broken, *changes, "steps=4", weights_dir=weights)
    found = state_of(broken)
    assert all(torch.equal(tensor, found[name]) for name, tensor in state_of(whole).items())
    cached = studio.train(tmp_path / "cached", *changes, "steps=2", weights_dir=weights)
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"cached features [0-9a-f]{8} of squeezenet; that cache no longer exists"):
        studio.train(cached, *changes, "steps=4", weights_dir=weights)
    own_features("bf16")
    studio.train(cached, *changes, "steps=4", weights_dir=weights)


def test_a_named_cache_must_match_teacher_images_and_grid(studio, weights, own_features, tmp_path):
    folder = own_features("fp32", out=tmp_path / "mine", flip=False)
    named = f"alignment.features={folder}"
    changes = aligned("repa", "squeezenet")
    run = assembled(studio, *changes, named, "data.flip=false", weights_dir=weights)
    shards = json.loads((folder / "features.json").read_text())["shards"]
    digest = hashlib.sha256(json.dumps([[shard["name"], shard["sha256"]] for shard in shards]).encode()).hexdigest()
    assert run.sources == {"features": digest}
    with pytest.raises(DataError, match="holds no features of flipped images"):
        assembled(studio, *changes, named, weights_dir=weights)
    with pytest.raises(DataError, match=r"made with input 80x80 and grid 4x4, not with input 144x144 and grid 8x8"):
        assembled(studio, *changes, named, "model.patch=1", "data.flip=false", weights_dir=weights)
    with pytest.raises(DataError, match=r"stale feature cache: made with teacher squeezenet .*not with teacher dinov2-s"):
        assembled(studio, *aligned("repa", "dinov2-s"), named, "data.flip=false", weights_dir=weights)
    with pytest.raises(DataError, match="is not a feature cache"):
        assembled(studio, *changes, "alignment.features=nowhere", weights_dir=weights)


def test_the_teacher_of_a_warm_up_sees_unfiltered_images(studio, weights):
    changes = aligned("repa", "squeezenet")
    warm = batches_of(assembled(studio, *changes, "warmup.steps=2", "warmup.cutoff=0.05", weights_dir=weights), 3)
    plain = batches_of(assembled(studio, *changes, weights_dir=weights), 3)
    for early, late in zip(warm, plain, strict=True):
        assert torch.equal(early.images, late.images)
    assert (warm[0].mean - plain[0].mean).abs().max() > 0.1      # while the latents are those of filtered images


def test_a_teacher_with_another_grid_is_an_error_or_resampled(studio, weights):
    changes = aligned("repa", "timm:resnet10t")
    with pytest.raises(RecipeError, match="the transformer has 4x4 tokens, but timm:resnet10t has"):
        assembled(studio, *changes, weights_dir=weights)
    run = assembled(studio, *changes, "alignment.resize=bilinear", weights_dir=weights)
    (report, *_) = islice(run.reports(0), 1)
    assert torch.isfinite(report.values["alignment"])


def test_all_parameters_but_the_position_table_are_trained(studio, finished):
    found = load_file(finished / "checkpoints" / "00000008" / "model.safetensors")
    assert torch.equal(found["transformer/network.pos_embed"], position_table((4, 4), 32)[None])
    begun = assembled(studio).training.task.players["transformer"].state_dict()
    unmoved = [name for name, tensor in begun.items() if torch.equal(tensor, found[f"transformer/{name}"])]
    assert unmoved == ["network.pos_embed"]


def test_a_run_leaves_rows_of_losses_bands_scores_and_a_grid(finished, rows_of):
    rows = rows_of(finished)
    losses = [row for row in rows if "diffusion" in row]
    assert [row["step"] for row in losses] == list(range(1, 9))
    assert {"band1", "band2", "band3", "band4", "lr_transformer", "images_per_second"} <= set(losses[0])
    scores = [row for row in rows if "val_fd_random" in row]
    assert [row["step"] for row in scores] == [8]
    assert list((finished / "samples").glob("*.png"))
    assert (finished / "DONE").exists()


def test_the_first_loss_is_that_of_the_output_zero(finished, rows_of):
    """SiT starts as the function 0: the mean square of noise - x for normalized x is 2."""
    assert rows_of(finished)[0]["diffusion"] == pytest.approx(2, abs=0.2)


def test_the_loss_falls_to_the_floor_of_white_latents(studio):
    """From 2 to the mean over t of 2 - (2t - 1)^2 / (t^2 + (1 - t)^2) = pi / 2 for white Gaussian latents."""
    run = assembled(studio, "steps=250", "optimizer.lr=3e-3")
    losses = [float(report.values["diffusion"]) for report in run.reports(0)]
    assert 1.45 < sum(losses[-100:]) / 100 < 1.75


@pytest.mark.parametrize(("stats", "precision"), [("channel", "fp32"), ("scalar", "bf16")])
def test_online_latents_are_those_of_a_float32_cache(studio, tmp_path, stats, precision):
    changes = ["latents.dtype=fp32", f"latents.stats={stats}", f"latents.precision={precision}", "steps=2"]
    cached = assembled(studio, *changes)
    online = assembled(studio, *changes, "latents.online=true")
    ours, theirs = cached.training.task.stats, online.training.task.stats
    torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.std, theirs.std, rtol=1e-4, atol=0)
    for mine, other in zip(batches_of(cached, 3), batches_of(online, 3), strict=True):
        assert mine.ids == other.ids
        assert torch.equal(mine.labels, other.labels)
        torch.testing.assert_close(mine.mean, other.mean, rtol=0, atol=1e-5)
        rounded = mine.mean.bfloat16().float().equal(mine.mean)
        assert rounded == (precision == "bf16")
    first = [next(islice(run.reports(0), 1)).values["diffusion"] for run in (cached, online)]
    torch.testing.assert_close(*first, rtol=1e-5, atol=0)


@pytest.mark.parametrize("online", [False, True])
def test_the_slices_of_two_ranks_together_are_the_batches_of_one(studio, online):
    changes = [f"latents.online={str(online).lower()}"]
    whole = batches_of(assembled(studio, *changes), 3)
    halves = [batches_of(assembled(studio, *changes, ranks=Ranks(rank, 2, "cpu")), 3) for rank in (0, 1)]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert batch.ids == first.ids + second.ids
        torch.testing.assert_close(torch.cat([first.mean, second.mean]), batch.mean, rtol=0, atol=1e-5)


def test_a_warm_up_encodes_low_passed_images_and_then_reads_the_cache(studio):
    warm = batches_of(assembled(studio, "warmup.steps=2", "warmup.cutoff=0.1"), 4)
    plain = batches_of(assembled(studio), 4)
    images = open_images("data/classes", "train", image_size=32)
    number = {key: index for index, key in enumerate(images.read(range(42)).ids)}
    autoencoder = load_autoencoder("runs/tiny")
    mirrored = 0
    for step in range(2):
        assert warm[step].ids == plain[step].ids
        x = images.read([number[key] for key in warm[step].ids]).images.numpy()
        for k in range(8):
            spectrum = np.fft.fft2(x[k])
            radius = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32))
            low = torch.from_numpy(np.fft.ifft2(spectrum * (radius <= 0.1)).real.copy()).float()
            with torch.no_grad():
                means = [autoencoder.encode(version[None]).mean[0] for version in (low, low.flip(-1))]
            distances = [float((warm[step].mean[k] - mean).abs().max()) for mean in means]
            assert min(distances) < 1e-4
            mirrored += distances[1] < distances[0]
    assert 0 < mirrored < 16
    for step in (2, 3):
        assert torch.equal(warm[step].mean, plain[step].mean)
    assert torch.equal(batches_of(assembled(studio, "warmup.steps=2"), 1, first=3)[0].mean, plain[3].mean)


@pytest.mark.parametrize(
    "changes",
    [
        ["warmup.steps=3"],
        ["process.kind=flow", "process.input_perturbation=0.2"],
        ["process.kind=ddpm", "process.input_perturbation=0.2", "sampler.kind=ddim"],
    ],
    ids=["low-passed", "perturbed flow", "perturbed ddpm"],
)
def test_a_run_with_changed_inputs_resumes_bit_for_bit(studio, tmp_path, state_of, changes):
    changes = [*changes, "save_every=2"]
    whole = studio.train(tmp_path / "whole", *changes, "steps=4")
    broken = studio.train(tmp_path / "broken", *changes, "steps=2")
    studio.train(broken, *changes, "steps=4")
    expected, found = state_of(whole), state_of(broken)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_u_vit_with_ddpm_and_scalar_statistics_trains(studio, tmp_path, rows_of):
    changes = ["model.kind=uvit", "process.kind=ddpm", "sampler.kind=ddim", "latents.stats=scalar", "labels=", "ema="]
    run = studio.train(tmp_path / "run", *changes, "steps=4")
    losses = [row["diffusion"] for row in rows_of(run) if "diffusion" in row]
    assert len(losses) == 4
    assert all(np.isfinite(losses))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (["latents.autoencoder=runs/dsm"], CheckpointError, "Train it first: smtool train-ae recipes/dsm.toml"),
        (
            ["latents.autoencoder=runs/paper-table2-f8d4-dsm.ae"],
            CheckpointError,
            "smtool train-ae recipes/paper/table2/f8d4-dsm.ae.toml",
        ),
        (["latents.autoencoder=runs/quickstart/plain"], CheckpointError, "quickstart/plain.toml --out runs/quickstart/plain"),
        (["latents.autoencoder=runs/mine"], CheckpointError, "no such file, folder or run"),
        (["data.train=nowhere"], DataError, "nowhere"),
        (["data.train=photos/photos-train42-val2-32"], DataError, "has no classes, but the recipe has a [labels] table"),
        (["data.image_size=64"], DataError, "32 px, but 64 px are asked for"),
        (["latents.stats=published"], RecipeError, "has no published statistics"),
        (["sampler.cfg_channels=3"], RecipeError, "sampler.cfg_channels: is 3, but the latents have 2 channels."),
        (["model.patch=3"], RecipeError, "cannot be cut into patches of patch = 3"),
        (["alignment.kind=repa", "alignment.teacher=dinov9", "alignment.depth=1"], RecipeError, "no teacher is called 'dinov9'"),
    ],
)
def test_an_impossible_recipe_is_an_error_of_one_sentence(studio, changes, error, words):
    with pytest.raises(error) as caught:
        assembled(studio, *changes)
    assert words in str(caught.value)


def test_a_batch_that_ranks_cannot_share_is_an_error(studio):
    with pytest.raises(RecipeError, match=r"data\.batch = 8 is not a multiple of 3 ranks x 1"):
        assembled(studio, ranks=Ranks(0, 3, "cpu"))


def test_an_autoencoder_without_training_data_needs_data_train(studio, tmp_path):
    write_autoencoder(tmp_path / "ckpt.safetensors", load_autoencoder("runs/tiny"), {})
    here = f"latents.autoencoder={tmp_path}"
    with pytest.raises(RecipeError, match=r"data\.train is required, because .* does not state its training data"):
        assembled(studio, here)
    with pytest.raises(RecipeError, match=r"data\.image_size is required"):
        assembled(studio, here, "data.train=data/classes")
    run = assembled(studio, here, "data.train=data/classes", "data.image_size=32")
    assert run.summary[0].startswith("latents (2, 8, 8) of 42")


def caches() -> set[Path]:
    """The latent caches of data/classes in their default folder, of default settings."""
    others = {"fp32", "noflip"}
    return {path.absolute() for path in Path("data/latents").glob("classes-*") if not others & {*path.name.split("-")}}


@pytest.fixture
def own_cache(studio, tmp_path, monkeypatch) -> Path:
    """A copy of the working folder, with the one latent cache of its autoencoder, whose card the test damages."""
    assembled(studio)
    for name in ("data/classes", "runs/tiny"):
        shutil.copytree(studio.folder / name, tmp_path / name)
    digest = load_autoencoder("runs/tiny").digest[:8]
    for folder in caches():
        if digest in folder.name:
            shutil.copytree(folder, tmp_path / "data/latents" / folder.name)
    monkeypatch.chdir(tmp_path)
    (folder,) = caches()
    (card,) = folder.glob("*.json")
    return card


def test_latents_of_the_wrong_std_stop_the_run_before_its_first_step(studio, own_cache):
    card = json.loads(own_cache.read_text())
    card["measured"]["channel_std"] = [2 * value for value in card["measured"]["channel_std"]]
    own_cache.write_text(json.dumps(card))
    with pytest.raises(DataError, match=r"should have std 1, but those of \d+ images have 0\.5"):
        assembled(studio)
    assembled(studio, "latents.stats=scalar")


def test_a_stale_cache_is_an_error(studio, own_cache):
    card = json.loads(own_cache.read_text())
    own_cache.write_text(json.dumps({**card, "autoencoder": "f" * 64}))
    with pytest.raises(DataError, match="is a stale latent cache: made with autoencoder ffffffff"):
        assembled(studio)


def test_latents_of_other_images_stop_the_run(studio, own_cache):
    """The cache of another autoencoder, with the digests of this one."""
    studio.write_autoencoder(Path("runs/other/ckpt.safetensors"), 1)
    assembled(studio, "latents.autoencoder=runs/other")
    (other,) = caches() - {own_cache.parent}
    digest = json.loads(own_cache.read_text())["autoencoder"]
    shutil.rmtree(own_cache.parent)
    shutil.copytree(other, own_cache.parent)
    card = json.loads(own_cache.read_text())
    own_cache.write_text(json.dumps({**card, "autoencoder": digest}))
    with pytest.raises(DataError, match="The latents are not those of their images"):
        assembled(studio)


def test_an_encoder_without_decoder_is_an_error(studio, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("SMTOOL_WEIGHTS", str(weights))
    changes = ("latents.autoencoder='timm:resnet10t'", "data.train='data/classes'", "data.image_size=64")
    with pytest.raises(CheckpointError, match="has no decoder: samples of a transformer on its latents could not be decoded"):
        studio.train(tmp_path / "run", *changes)
