from pathlib import Path

import numpy
import pytest
import torch
from torchvision.models import squeezenet1_1

from smtool.checkpoints import write_autoencoder
from smtool.commands.race.adhoc_recipe import adhoc_race
from smtool.commands.race.plan import equal_tokens, plan_race
from smtool.data import open_images
from smtool.errors import RecipeError
from smtool.networks.sd_vae import SDVAE

CHECKPOINTS = {
    "f4": SDVAE(downsample=4, latent_channels=2, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1),
    "f2": SDVAE(downsample=2, latent_channels=2, channels=(8, 8), norm_groups=4, blocks_per_level=1),
}


@pytest.fixture
def checkpoints(tmp_path) -> list[str]:
    paths = [tmp_path / "runs" / name / "ckpt.safetensors" for name in CHECKPOINTS]
    for path, config in zip(paths, CHECKPOINTS.values(), strict=True):
        write_autoencoder(path, config.build(), {"recipe": {"data": {"train": "builtin:photos", "image_size": 32}}})
    return [str(path) for path in paths]


def test_each_racer_and_seed_has_its_own_run_with_its_seed(planned):
    plan = planned()
    assert [trial.key for trial in plan.trials] == ["plain-seed0", "plain-seed1", "dsm-seed0", "dsm-seed1"]
    for trial in plan.trials:
        transformer, autoencoder = trial.training.load().tables, trial.autoencoder.training.load().tables
        assert transformer.seed == autoencoder.seed == trial.seed
        assert transformer.latents.autoencoder == str(trial.autoencoder.path)
        assert (transformer.data.train, transformer.data.image_size.stored, transformer.save_every) == ("builtin:photos", 32, 4)
        assert transformer.log_every == autoencoder.log_every == 4      # not 50: a race may end after its first turn
    assert (plan.steps, plan.tokens) == (9, 16)


def test_equal_autoencoders_are_trained_once(planned):
    plan = planned(
        "racers.again={recipe='dsm', transformer=['labels={}']}", "racers.other={recipe='dsm', changes=['data.flip=false']}"
    )
    assert [run.key for run in plan.autoencoders if run.seed == 0] == ["plain-seed0", "dsm-seed0", "other-seed0"]
    keys = [trial.autoencoder.key for trial in plan.trials if trial.seed == 1]
    assert keys == ["plain-seed1", "dsm-seed1", "dsm-seed1", "other-seed1"]


def test_larger_latents_get_larger_patches():
    shapes = {"small": (4, 8, 8), "large": (4, 16, 16)}
    assert equal_tokens(shapes, {"small": 2, "large": 2}) == ({"small": 2, "large": 4}, 16)
    assert equal_tokens(shapes, {"small": 1, "large": 1}) == ({"small": 1, "large": 2}, 64)
    shapes = {"small": (4, 4, 6), "large": (4, 8, 12)}
    assert equal_tokens(shapes, {"small": 2, "large": 2}) == ({"small": 2, "large": 4}, 6)


@pytest.mark.parametrize(
    ("sides", "patch", "words"),
    [
        ((8, 10), 2, "the 10 x 10 latents of b cannot be divided into 4 x 4 tokens, those of a (8 cells per side, patch 2)"),
        ((7, 7), 2, "patch = 2 does not divide 7, the side of a's latents"),
        (((4, 6), (8, 14)), 2, "the 8 x 14 latents of b cannot be divided into 2 x 3 tokens, those of a (4 x 6 cells, patch 2)"),
        (((4, 6), (8, 18)), 2, "the 8 x 18 latents of b cannot be divided into 2 x 3 tokens"),
        (((4, 7), (8, 14)), 2, "patch = 2 does not divide 4 x 7, the side of a's latents"),
    ],
)
def test_unequal_numbers_of_tokens_are_an_error(sides, patch, words):
    sizes = [(side, side) if isinstance(side, int) else side for side in sides]
    with pytest.raises(RecipeError) as caught:
        equal_tokens({name: (4, *size) for name, size in zip("ab", sizes, strict=True)}, {"a": patch, "b": patch})
    assert words in str(caught.value)


def test_checkpoints_are_named_after_their_runs_and_use_their_training_images(checkpoints, tmp_path):
    loaded, entries = adhoc_race(checkpoints, tmp_path / "out")
    plan = plan_race(loaded.tables, entries, tmp_path / "out")
    assert plan.racers == ("f4", "f2")
    assert (plan.images.train, plan.images.image_size.stored) == ("builtin:photos", 32)
    assert {run.key for run in plan.autoencoders} == {"f4", "f2"}      # the same for every seed
    assert plan.tokens == 16
    assert {trial.racer: trial.training.load().tables.model.patch for trial in plan.trials} == {"f4": 2, "f2": 4}
    assert (tmp_path / "out" / "recipe.toml").is_file()


def test_equal_names_are_numbered(checkpoints, tmp_path):
    loaded, _ = adhoc_race([checkpoints[0], checkpoints[0]], tmp_path / "out")
    assert list(loaded.tables.racers) == ["f4-1", "f4-2"]


def test_racers_are_raced_on_rectangles_of_the_channels_of_their_autoencoders(planned):
    plan = planned("data.image_size=[32, 64]", "autoencoders.changes=['model.image_channels=1']")
    assert (plan.images.image_size.stored, plan.images.image_channels, plan.tokens) == ([32, 64], 1, 32)
    tables = plan.trials[0].autoencoder.training.load().tables
    assert tables.shapes.images[1:] == (1, 32, 64)
    assert plan.trials[0].training.load().tables.data.image_size.stored == [32, 64]
    mixed = planned("racers.gray={recipe='dsm', changes=['model.image_channels=1']}")
    said = "gray encodes images with image_channels = 1, but those of the race have 3"
    assert said in str(mixed.broken["gray"])


def test_a_broken_checkpoint_is_left_out_and_named(checkpoints, tmp_path):
    Path(checkpoints[1]).write_bytes(b"nothing")
    loaded, entries = adhoc_race(checkpoints, tmp_path / "out")
    plan = plan_race(loaded.tables, entries, tmp_path / "out")
    assert {trial.racer for trial in plan.trials} == {"f4"}
    assert "not a readable safetensors file" in str(plan.broken["f2"])


def test_checkpoints_with_different_images_need_data(checkpoints, tmp_path):
    write_autoencoder(Path(checkpoints[1]), CHECKPOINTS["f2"].build(), {"recipe": {"data": {"train": "x", "image_size": 64}}})
    loaded, entries = adhoc_race(checkpoints, tmp_path / "out")
    with pytest.raises(RecipeError, match=r"data\.train is not given, and the checkpoints were trained with builtin:photos"):
        plan_race(loaded.tables, entries, tmp_path / "out")


def test_any_tokenizer_with_a_decoder_can_race(checkpoints, tmp_path, monkeypatch):
    with torch.random.fork_rng():
        state = {name: value.half() for name, value in squeezenet1_1(weights=None).state_dict().items()}
    torch.save(state, tmp_path / "squeezenet1_1_torchvision_fp16.pth")
    monkeypatch.setenv("SMTOOL_WEIGHTS", str(tmp_path))
    changes = ("data.train='builtin:photos'", "data.image_size=32")
    loaded, entries = adhoc_race(["pixels", "control:crop", "squeezenet"], tmp_path / "out", changes)
    plan = plan_race(loaded.tables, entries, tmp_path / "out")
    opened = {trial.racer: str(trial.autoencoder.path) for trial in plan.trials}
    assert opened == {"pixels": "pixels", "control-crop": "control:crop"}
    tables = {trial.racer: trial.training.load().tables for trial in plan.trials}
    assert {name: (table.latents.autoencoder, table.model.patch) for name, table in tables.items()} == {
        "pixels": ("pixels", 16),      # 2 x 2 tokens, as for the control's 4 x 4 latents
        "control-crop": ("control:crop", 2),
    }
    assert "squeezenet has no decoder" in str(plan.broken["squeezenet"])


def test_eta_is_measured_on_the_images_of_the_race(tmp_path):
    """As the 1.75 and 98.25 percentiles of the means of 2 x 2 pixels, times 2."""
    changes = ("data.train='builtin:photos?train=16&val=4'", "data.image_size=32")
    loaded, entries = adhoc_race(["dct:2x4,eta=measured", "pixels"], tmp_path / "out", changes)
    plan = plan_race(loaded.tables, entries, tmp_path / "out")
    images = open_images("builtin:photos?train=16&val=4", "train", image_size=32).read(range(16)).images.double()
    luma = torch.einsum("c,nchw->nhw", torch.tensor([0.299, 0.587, 0.114]).double(), images * 127.5)
    sums = luma.reshape(16, 16, 2, 16, 2).sum((2, 4)) / 2 - 1      # DCTdiff subtracts 128, not 127.5
    expected = abs(numpy.percentile(sums, [1.75, 98.25])).max()
    (place,) = {str(trial.autoencoder.path) for trial in plan.trials if trial.racer != "pixels"}
    assert place.startswith("dct:2x4,eta=")
    assert float(place.removeprefix("dct:2x4,eta=")) == pytest.approx(expected, rel=1e-5)
