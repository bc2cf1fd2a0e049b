import io
import json
import os
import signal
import threading
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import warm_process

from smtool.checkpoints import write_autoencoder
from smtool.commands.evaluate.result import ReconstructionEvaluation
from smtool.commands.quickstart import study as pipeline
from smtool.commands.quickstart.scores import Look, score_tables
from smtool.commands.train.side_by_side import Job, train_side_by_side
from smtool.diffusability import strips
from smtool.errors import Interrupted, RecipeError
from smtool.evaluation.scores import Passport, ReconstructionScore
from smtool.inference.diffusion_model import read_diffusion
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing
from smtool.recipe import TrainAE, TrainDiT, load, packaged
from smtool.report.console import Console
from smtool.tokenizers import identify, open_tokenizer

TINY = """
steps = 2
log_every = 1
evaluate_every = 2
save_every = 2
[data]
train = "builtin:photos?train=24&val=24"
image_size = 32
batch = 4
[model]
downsample = 4
channels = [8, 8, 8]
blocks_per_level = 1
norm_groups = 4
[optimizer]
warmup = 0
[tracking]
tensorboard = false
"""

TINY_SIT = """
steps = 4
log_every = 1
evaluate_every = 4
save_every = 4
[latents]
autoencoder = "set by the quickstart"
[data]
train = "builtin:photos?train=24&val=24"
batch = 4
[model]
kind = "sit"
size = "custom"
depth = 1
width = 16
heads = 2
patch = 4
[optimizer]
[sampler]
kind = "heun"
steps = 2
[validation]
num_images = 2
[tracking]
tensorboard = false
"""


SHIPPED = dict(pipeline.SPECIMENS)
SPECIMEN = SDVAE(downsample=4, latent_channels=4, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1)


def write_specimen(path: Path, seed: int) -> None:
    """An autoencoder of random weights for images of 32 px, in the place of one that was trained for an hour."""
    with initializing("test", seed):
        autoencoder = SPECIMEN.build()
    write_autoencoder(path, autoencoder, {"recipe": {"data": {"train": "builtin:photos", "image_size": 32}}})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, page, what was shown) of a quickstart whose recipes take a few steps."""
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "plain.toml").write_text(TINY)
    (folder / "dsm.toml").write_text(TINY + "[regularizers.dsm]\n")
    (folder / "sit.toml").write_text(TINY_SIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        warm_process.fork_workers(patch.setattr)
        patch.setattr(pipeline, "RECIPES", {"plain": "plain.toml", "dsm": "dsm.toml"})
        specimens = {name: f"specimen-{name}.safetensors" for name in ("plain", "dsm")}
        for seed, path in enumerate(specimens.values()):
            write_specimen(folder / path, seed)
        patch.setattr(pipeline, "SPECIMENS", specimens)
        patch.setattr(strips, "NUM_CROPS", 13)      # a second crop of one photograph
        patch.setattr(pipeline.generation, "RECIPE", "sit.toml")
        patch.setattr(pipeline.generation, "NUM_SAMPLES", 24)
        shown = io.StringIO()
        page = pipeline.quickstart(console=Console(file=shown))
        first = page.read_bytes()
        logged = {path: path.read_bytes() for path in folder.rglob("metrics.jsonl")}
        pipeline.quickstart(console=Console(quiet=True))
        yield folder, page, shown.getvalue(), first, logged


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.sources, self.drawings = "", [], 0

    def handle_starttag(self, tag, attrs):
        self.drawings += tag == "svg"
        if tag == "img":
            self.sources.append(dict(attrs)["src"])

    def handle_data(self, data):
        self.words += data


@pytest.mark.slow
def test_one_page_holds_all_figures_grids_and_scores(finished):
    reader = Reader()
    reader.feed(finished[1].read_text())
    assert len(reader.sources) == 5      # two grids, crops, samples of two
    assert reader.drawings == 8          # two strips, overview, power of samples, learning curves, physical, reference, low-pass
    assert all(source.startswith("data:image/") for source in reader.sources)
    for text in ("specimen-plain", "specimen-dsm", "PSNR", "PHYSICAL", "REFERENCE", "13 validation crops of",
                 "image, low-passed", "n = 12", "does not rank methods", "smtool spectrum",
                 "SiT",
                 "FD random", "KD random", "precision", "24 images of each kind against all 24 training crops", "heun, 2 steps",
                 "band 4", "Gaussian", "smtool train-dit", "smtool sample"):
        assert text in reader.words


@pytest.mark.slow
def test_every_run_and_figure_is_where_the_commands_leave_them(finished):
    folder = finished[0] / "runs" / "quickstart"
    for name in ("plain/ckpt.safetensors", "dsm/DONE", "spectrum/physical.svg", "spectrum/spectrum.json", "report.html",
                 "plain-sit/ckpt.safetensors", "dsm-sit/DONE", "dsm-sit/samples-heun-2-cfg1-seed0-24-balanced-npz/samples.npz"):
        assert (folder / name).is_file(), name
    assert json.loads((folder / "spectrum" / "spectrum.json").read_text())["autoencoders"][1]["label"] == "specimen-dsm"


@pytest.mark.slow
def test_the_console_names_the_commands_and_the_page(finished):
    shown = finished[2]
    for text in ("smtool prepare", "smtool train-ae", "smtool spectrum", "smtool eval", "4/4 steps", "smtool train-dit",
                 "8/8 steps", "smtool sample", "report.html"):
        assert text in shown


@pytest.mark.slow
def test_running_it_again_trains_nothing_and_gives_the_same_page(finished):
    _, page, _, first, logged = finished
    assert page.read_bytes() == first
    assert len(logged) == 4      # two autoencoders, two transformers
    for path, rows in logged.items():
        assert path.read_bytes() == rows


def test_the_recipes_differ_in_dsm_only_and_are_small():
    plain, dsm = (load(str(packaged() / "quickstart" / f"{name}.toml"), TrainAE).resolved() for name in ("plain", "dsm"))
    assert dsm["regularizers"].pop("dsm")["rows_removed"] == [0, 8, 10, 12]
    assert plain == dsm
    assert plain["steps"] * plain["data"]["batch"] <= 320 * 16
    assert "perceptual" not in plain
    assert {name: identify(what).metadata["recipe"]["data"]["image_size"] for name, what in SHIPPED.items()} == {
        "plain": 64, "dsm": 64,
    }  # fmt: skip
    sit = load("quickstart/sit", TrainDiT).tables
    assert sit.steps * sit.data.batch <= 500 * 32
    assert sit.model.depth * sit.model.width <= 4 * 128


@pytest.mark.slow
def test_each_transformer_is_trained_on_the_latents_of_its_own_specimen(finished):
    folder = finished[0] / "runs" / "quickstart"
    specimens = [open_tokenizer(str(finished[0] / f"specimen-{name}.safetensors")) for name in ("plain", "dsm")]
    models = [read_diffusion(folder / f"{name}-sit" / "ckpt.safetensors") for name in ("plain", "dsm")]
    for specimen, model in zip(specimens, models, strict=True):
        assert model.metadata["autoencoder"]["digest"] == specimen.digest
    assert specimens[0].digest != specimens[1].digest
    first, second = (dict(model.metadata["recipe"]) for model in models)
    assert first.pop("latents") != second.pop("latents")
    assert first == second


@pytest.mark.slow
def test_a_recipe_that_fails_is_named_with_its_reason(finished, tmp_path, monkeypatch):
    warm_process.fork_workers(monkeypatch.setattr)
    (tmp_path / "bad.toml").write_text(TINY.replace("steps = 2", "stepz = 2"))
    recipe = replace(load(str(finished[0] / "plain.toml"), TrainAE), path=tmp_path / "bad.toml")
    with pytest.raises(RecipeError, match=r"bad\.toml: .*[\s\S]*stepz: no such key"):
        train_side_by_side([Job(recipe, tmp_path / "run")], console=Console(quiet=True))


@pytest.mark.slow
def test_a_stop_reaches_the_runs_and_is_no_failure(finished, tmp_path, monkeypatch):
    warm_process.fork_workers(monkeypatch.setattr)
    (tmp_path / "long.toml").write_text(TINY.replace("steps = 2", "steps = 1000000"))
    recipe = load(str(tmp_path / "long.toml"), TrainAE)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Interrupted, match="Repeat the command to resume"):
        train_side_by_side([Job(recipe, tmp_path / "run")], console=Console(quiet=True))
    timer.join()
    assert not (tmp_path / "run" / "DONE").exists()


@pytest.mark.slow
def test_a_finished_run_of_another_recipe_is_not_taken_for_this_one(finished):
    folder = finished[0]
    other = load(str(folder / "dsm.toml"), TrainAE)
    with pytest.raises(RecipeError, match="started with another recipe"):
        train_side_by_side([Job(other, folder / "runs/quickstart/plain")], console=Console(quiet=True))


def test_scores_of_unlike_passports_are_not_put_in_one_table():
    def look(num_images):
        passport = {
            "metric": "psnr", "extractor": None, "extractor_sha256": None, "resize": "none", "codec": "none", "posterior": "mode",
            "protocol": "clean", "num_images": num_images, "images_sha256": "i" * 64, "num_reference": num_images,
            "reference_sha256": "i" * 64, "seed": 0,
        }  # fmt: skip
        common = {"name": "psnr", "title": "PSNR", "better": "higher", "value": 20.0, "half_width": 1.0, "notes": ()}
        score = ReconstructionScore(**common, passport=Passport(**passport))
        return Look(None, 0, ReconstructionEvaluation.model_construct(scores={"psnr": score}))

    together, = score_tables({"a": look(8), "b": look(8)})
    assert together.rows == (("PSNR (higher is better)", "20.00 ± 1.00", "20.00 ± 1.00"),)
    tables = score_tables({"a": look(8), "b": look(9)})
    assert tables[0].rows == ()
    assert "passports differ" in tables[1].title
