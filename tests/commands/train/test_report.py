"""report.html of runs: its contents, when it is written, and pages of incomplete folders."""

import base64
import io
import json
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smtool.commands.train import training, watch
from smtool.commands.train.report import write_report
from smtool.commands.train.report_panels import _TITLES, band_panels, loss_panels, progress_panels, score_panels
from smtool.commands.train.run_folder import RunFolder
from smtool.data import open_images
from smtool.errors import CheckpointError, TrainingError
from smtool.recipe import TrainAE, load
from smtool.report.console import Console
from smtool.report.curves import curves_figure

pytestmark = pytest.mark.draws
AUTOENCODER = """
steps = 4
log_every = 1
evaluate_every = 2
[data]
train = "{data}"
image_size = 32
batch = 4
[model]
downsample = 4
latent_channels = 2
channels = [4, 4, 8]
norm_groups = 4
blocks_per_level = 1
[optimizer]
lr = 1e-3
[regularizers.esm]
[validation]
num_images = 8
grid = 4
"""


def words(page: str) -> str:
    """The text of a page, including titles in figures, without tags."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", page, flags=re.S)))


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A whole run of train-ae."""
    folder = tmp_path_factory.mktemp("trained")
    images = open_images("builtin:photos?train=16&val=8", "train", image_size=32, root=folder / "data")
    (folder / "ae.toml").write_text(AUTOENCODER.format(data=images.folder))
    return training.train(load(str(folder / "ae.toml"), TrainAE), console=Console(file=io.StringIO()), out=folder / "run")


@pytest.fixture
def drawn(finished, tmp_path) -> Path:
    """A copy of the finished run whose page has its drawings."""
    run = tmp_path / "drawn"
    shutil.copytree(finished, run)
    write_report(RunFolder(run))
    return run


def test_a_run_of_train_dit_leaves_curves_bands_scores_samples_recipe_and_passport(drawn, rows_of):
    finished, page = drawn, (drawn / "report.html").read_text()
    text = words(page)
    last = [row for row in rows_of(finished) if "diffusion" in row][-1]
    assert "Finished: 8 steps" in text
    assert "Latents (2, 8, 8) of 42 images, 8 a step" in text
    for config in ("Losses", "Validation", "Samples", "Progress", "Recipe", "Environment", "Next commands"):
        assert f">{config}</h2>" in page
    assert f"diffusion, all frequencies: {last['diffusion']:.3g}" in text
    for number, name in enumerate(["band 1, lowest", "band 2", "band 3", "band 4, highest"], start=1):
        assert f"{name}: {last[f'band{number}']:.3g}" in text
    scores = rows_of(finished)[-1]
    assert f"fd_random: {scores['val_fd_random']:.3g}" in text
    assert "8 samples (euler, 4 steps, guidance 1)" in text
    assert 'autoencoder = "runs/tiny"' in text
    assert re.search(r"seed +0", text) and "average, decay 0.9" in text
    (grid,) = pictures(page)
    assert np.array_equal(grid, np.array(Image.open(next((finished / "samples").glob("*-samples.png")))))
    assert f"smtool sample {finished}" in text


def test_floors_of_the_bands_are_logged_and_drawn_where_they_are_known(drawn, rows_of):
    rows = rows_of(drawn)
    floors = rows[-1]
    assert 0 < floors["floor_band1"] < 20
    assert min(floors[f"floor_band{n}"] for n in range(1, 5)) <= floors["floor_diffusion"]
    assert floors["floor_diffusion"] <= max(floors[f"floor_band{n}"] for n in range(1, 5))
    assert (drawn / "report.html").read_text().count("floor if Gaussian") == 5


def test_a_run_of_train_ae_shows_its_terms_scores_and_reconstructions(trained, rows_of):
    page = (trained / "report.html").read_text()
    text = words(page)
    last = [row for row in rows_of(trained) if "l1" in row][-1]
    assert f"reconstruction (l1): {last['l1']:.3g}" in text and f"ESM: {last['esm']:.3g}" in text
    assert f"PSNR: {rows_of(trained)[-1]['val_psnr']:.3g}" in text
    assert ">Reconstructions</h2>" in page and ">Samples</h2>" not in page
    assert "Step 4." in text
    assert len(pictures(page)) == len({path.name.split("-", 1)[1] for path in (trained / "samples").iterdir()})
    assert f"smtool spectrum {trained} --plot" in text


def test_it_is_written_at_each_validation_and_states_the_step(studio, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(watch, "write_report", lambda folder: seen.append((write_report(folder).read_text(), folder)))
    studio.train(tmp_path / "run", "evaluate_every=2", "steps=6")
    states = [re.search(r"Running or stopped: at step (\d)|Finished: (\d) steps", page).group() for page, _ in seen]
    assert states == [*(f"Running or stopped: at step {step}" for step in (2, 4)), "Finished: 6 steps"]
    stages = pictures(seen[-1][0])[1]      # the first row of each step, from the same noise
    grids = [np.array(Image.open(tmp_path / "run" / "samples" / f"{step:08d}-samples.png")) for step in (2, 4, 6)]
    tall = (grids[0].shape[0] + 1) // 2 - 1
    for number, grid in enumerate(grids):
        assert np.array_equal(stages[number * (tall + 1) : number * (tall + 1) + tall], grid[:tall])


def test_grids_of_another_size_stay_out_of_the_stages(finished, tmp_path):
    """validation.grid may change when a run is resumed."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (last,) = (run / "samples").iterdir()
    Image.new("RGB", (9, 9)).save(run / "samples" / "00000002-samples.png")
    assert len(pictures(write_report(RunFolder(run)).read_text())) == 1
    shutil.copy(last, run / "samples" / "00000004-samples.png")
    assert "steps 4, 8 from top" in words(write_report(RunFolder(run)).read_text())


def test_a_run_that_diverged_says_so(studio, tmp_path):
    with pytest.raises(TrainingError):
        studio.train(tmp_path / "run", "optimizer.lr=1e30", "optimizer.clip=1e30", "evaluate_every=1", "ema=")
    text = words((tmp_path / "run" / "report.html").read_text())
    assert "Failed: Step" in text and "diverged" in text


def test_a_folder_with_missing_or_incomplete_files_has_a_page(finished, tmp_path):
    """Without facts, rows or pictures; with nulls where numbers were not finite, and half a line at the end."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "samples")
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({k: v for k, v in environment.items() if k not in ("facts", "sources")}))
    (run / "metrics.jsonl").write_text('{"step": 1, "diffusion": null, "not_finite": {"diffusion": "nan"}}\n{"step": 2, "dif')
    text = words(write_report(RunFolder(run)).read_text())
    assert "diffusion, all frequencies" in text and "Samples" not in text
    (run / "metrics.jsonl").unlink()
    assert "Losses" not in words(write_report(RunFolder(run)).read_text())


def test_text_of_a_recipe_is_escaped(finished, tmp_path):
    run = tmp_path / "<b>run"
    shutil.copytree(finished, run)
    page = write_report(RunFolder(run)).read_text()
    assert "<b>run" not in page and "&lt;b&gt;run" in page


def test_titles_of_all_logged_quantities_fit_above_their_panels():
    names = [*_TITLES, "lr_autoencoder", "discriminator_gradient", "adversarial_factor", "scale_equivariance", "band1", "band4"]
    names += ["val_kid_timm_vit_giant_patch14_reg4_dinov2.lvd142m", "val_fd_random"]
    rows = [{"step": step, **dict.fromkeys(names, 0.01234 * step), "lr_autoencoder": 4.56e-5 / step} for step in (1, 2)]
    for panels, columns in ((loss_panels, 3), (score_panels, 3), (progress_panels, 3), (band_panels, 4)):
        figure = curves_figure(panels(rows), columns=columns)
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
        assert not [(i, j) for i, one in enumerate(boxes) for j in range(i) if one.overlaps(boxes[j])]
    shown = [panel.title for panels in (loss_panels, band_panels, score_panels, progress_panels) for panel in panels(rows)]
    assert len(shown) == len(names)      # each in one panel


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("environment.json", b"{"),
        ("environment.json", b"[]"),
        ("resolved.toml", b"x = ["),
        ("resolved.toml", b"steps = 3"),
        ("DONE", b"\xff"),
    ],
)
def test_a_damaged_file_of_a_run_is_one_sentence(finished, tmp_path, name, data):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(data)
    with pytest.raises(CheckpointError, match="A file of this run is damaged"):
        write_report(RunFolder(tmp_path / "run"))
