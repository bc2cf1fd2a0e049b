import io
import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from smtool.checkpoints import write_autoencoder
from smtool.commands.train.live_spectrum import live_spectrum
from smtool.diffusability.inputs.subjects import _labels, open_subjects
from smtool.diffusability.page import _command, chapters, plots
from smtool.diffusability.plan import Limit
from smtool.diffusability.protocol import Protocol
from smtool.diffusability.report import SCHEMA, Report
from smtool.diffusability.sections.parts import NOT_MEASURED, Reason
from smtool.diffusability.sections.transfer import KAPPA_SPREAD_CUT
from smtool.diffusability.spectrum import _beside, spectrum
from smtool.errors import CheckpointError, RecipeError
from smtool.image_shape import ImageSize
from smtool.networks.sd_vae import SDVAE
from smtool.report.console import Console
from smtool.tokenizers import open_tokenizer


def figures(report: Report) -> dict[str, Figure]:
    return {plot.name: plot.figure for plot in plots(chapters(report))}


def quiet() -> Console:
    return Console(quiet=True)


@pytest.mark.slow
def test_every_figure_is_written_as_png_and_svg_beside_the_json(drawn):
    out, shown = drawn.folder, drawn.shown
    drawn_names = {"physical", "reference", "low-pass", *figures(drawn.report)}
    pictures = {path.name for path in out.glob("*.*.png")}
    assert {"images.masks.png", "plain.low-pass.png", "coarse.reconstructions.png"} <= pictures
    names = {f"{name}.{kind}" for name in drawn_names for kind in ("png", "svg")} | pictures | {"spectrum.json", "report.html"}
    assert {path.name for path in out.iterdir()} == names
    for name in ("report.html", "spectrum.json", f": {len(names) - 2} figures"):
        assert name in shown
    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    for path in out.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_json_parses_strictly_and_states_its_passport(drawn):
    report, out = drawn.report, drawn.folder
    read = json.loads((out / "spectrum.json").read_text(), parse_constant=pytest.fail)
    assert read["schema"] == SCHEMA == "smtool.spectrum/2"
    passport = read["passport"]
    assert passport["data"]["images"] == 48
    assert passport["data"]["unit"] == "photograph"
    assert passport["data"]["units"] == 12
    assert (passport["data"]["split"], passport["data"]["image_size"]) == ("validation", 32)
    assert len(passport["data"]["digest"]) == 64
    assert passport["delta"] == 0.6      # the ESM delta of the recipe
    assert passport["estimators"] == ["PHYSICAL", "REFERENCE.loss", "REFERENCE.curve"]
    plain = read["autoencoders"][0]
    assert len(plain["digest"]) == 64
    assert {(e["posterior"], e["latents"]) for e in plain["physical"]} == {
        ("sample", "normalized"), ("sample", "raw"), ("mean", "normalized"), ("mean", "raw")}
    assert "no LatentStats" in plain["normalization"]["source"]
    assert report.autoencoders[0].low_pass.images == 32


def test_latents_of_4_cells_have_powers_and_no_fit(drawn):
    shown, coarse = drawn.shown, drawn.report.autoencoders[1]
    assert coarse.latent_size == (4, 4)
    assert all(isinstance(one.slope, Reason) and one.power for one in coarse.physical)
    assert "4 latent cells" in coarse.low_pass.convention
    assert "coarse: no fit" in shown


def test_the_tables_name_what_they_show(drawn):
    shown = drawn.shown
    tables = ("PHYSICAL", "REFERENCE", "LOW-PASS", "DECODER", "VERDICT")
    for text in (*tables, "plain", "coarse", "sample, norm.", "mean, raw", "12 photographs", "95%"):
        assert text in shown


@pytest.mark.slow
def test_figures_keep_the_estimators_apart(drawn):
    made = figures(drawn.report)
    texts = {name: " ".join(text.get_text() for text in made[name].findobj(Text)) for name in ("physical", "reference")}
    assert "PHYSICAL" in texts["physical"]
    assert "KL" not in texts["physical"]
    assert "published" not in texts["physical"]
    assert "CelebA DSM, published" in texts["reference"]
    assert "PHYSICAL" not in texts["reference"]
    assert "slope" not in texts["reference"]


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes(runs, data, tmp_path):
    for name in ("a", "b"):
        out = tmp_path / name
        spectrum(["control:crop"], plot=True, data=data, num_images=6, estimator="reference", out=out, console=quiet())
    for path in (tmp_path / "a").iterdir():
        if path.suffix in (".png", ".svg"):
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    first, second = (json.loads((tmp_path / name / "spectrum.json").read_text()) for name in ("a", "b"))
    assert first.pop("cost")["pass_seconds"] > 0
    del second["cost"]
    assert first == second


def test_images_alone_have_their_own_spectrum(data, tmp_path):
    report = spectrum(["images"], plot=True, data=data, num_images=8, out=tmp_path, console=quiet())
    assert report.autoencoders == []
    assert 1.0 < report.images.physical.slope.exponent < 4.0
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {"physical.png", "reference.png", "images.magnitude-normalised.png", "images.noised.png", "images.masks.png"}


@pytest.mark.slow
def test_one_estimator_and_another_padding_can_be_asked_for(runs, data):
    options = {"estimator": "physical", "downsample_pad": "symmetric", "console": quiet()}
    report = spectrum([str(runs / "plain")], data=data, num_images=4, **options)
    assert report.passport.downsample_pad == "symmetric"
    assert "symmetric padding" in report.autoencoders[0].architecture.split(", ")
    assert report.images.reference is None
    drawn = figures(report)
    assert {"physical", "low-pass"} <= set(drawn)
    assert "reference" not in drawn


def test_plots_are_written_beside_the_checkpoint_and_only_on_request(runs, data):
    checkpoint = runs / "plain" / "ckpt.safetensors"
    spectrum([str(checkpoint)], data=data, num_images=4, console=quiet())
    assert not (runs / "plain" / "ckpt.spectrum").exists()
    subjects, _ = open_subjects([str(checkpoint)], data=data, downsample_pad=None, weights_dir=None, device="cpu")
    assert _beside(subjects) == runs / "plain" / "ckpt.spectrum"
    subjects, _ = open_subjects(
        [str(runs / "plain"), "control:crop"], data=data, downsample_pad=None, weights_dir=None, device="cpu"
    )
    assert _beside(subjects) == runs / "plain" / "plain-crop.spectrum"
    assert _beside(subjects[1:]) == Path("crop.spectrum")


def test_standard_output_holds_only_the_json_on_request(runs, data, capsys):
    spectrum([str(runs / "plain")], data=data, num_images=4, json_path=Path("-"), console=Console())
    assert json.loads(capsys.readouterr().out)["schema"] == SCHEMA


def test_a_spent_limit_runs_the_smallest_protocol_and_names_what_is_missing(runs, data, tmp_path):
    shown = io.StringIO()
    what = [str(runs / "plain")]
    report = spectrum(what, plot=True, out=tmp_path, data=data, limit=Limit(0.0, ends_early=True), console=Console(file=shown))
    assert report.passport.data.images == 16
    assert report.passport.stopped == "the time limit was reached"
    assert {"band transfer not measured", "low-pass curve not measured"} <= set(report.passport.cut)
    one = report.autoencoders[0]
    assert one.transfer == one.low_pass == one.health.shift == one.health.grid == NOT_MEASURED
    assert report.cost.passes["plain"].decode.images == 0
    assert "The smallest protocol takes longer than that" in shown.getvalue()
    page = (tmp_path / "report.html").read_text()
    assert "not measured, use --full" in page
    assert "Cut to keep the time limit" in page
    read = Report.model_validate_json((tmp_path / "spectrum.json").read_text())
    assert read.passport.cut == report.passport.cut


def test_a_cut_report_measures_what_its_passport_says(runs, data, monkeypatch):
    """Sections at a cut protocol: 3 removals, 4 bands, 4 images; more images for what only encodes."""
    cut = Protocol(20, ImageSize(32, 32), 4, (0, 8, 12), 4)
    monkeypatch.setattr(Protocol, "fitted", lambda *_: cut)
    monkeypatch.setattr(Protocol, "shortened", lambda *_: cut)
    report = spectrum([str(runs / "plain")], data=data, limit=Limit(1e6), console=quiet())
    assert report.passport.images == {"spectra": 20, "low_pass": 4, "transfer": 4, "shift": 4, "direction": 20}
    assert report.passport.cut == (
        "low-pass removals 15 -> 3 (n = 0, 8, 12)", "transfer bands 8 -> 4", "decoded images 32 -> 4", "encoded images 48 -> 20",
    )  # fmt: skip
    one = report.autoencoders[0]
    assert one.low_pass.rows_removed == [0, 8, 12]
    assert (one.transfer.bands, one.transfer.kappa_half_width) == (4, KAPPA_SPREAD_CUT)
    assert report.cost.passes["plain"].decode.images == cut.decodes == 4 * (3 + 5 + 3)


def test_a_limit_that_suffices_changes_no_number(runs, data):
    full, limited = (
        spectrum([str(runs / "plain")], data=data, num_images=6, limit=limit, console=quiet()) for limit in (None, Limit(1e6))
    )
    assert limited.autoencoders == full.autoencoders
    assert limited.images == full.images
    assert limited.passport.cut == full.passport.cut == ()
    assert (limited.passport.time_limit, full.passport.time_limit) == (1e6, None)



def test_a_budget_ends_early_once_delta_is_known(runs, data, monkeypatch):
    monkeypatch.setattr("smtool.diffusability.gathering.GOOD_HALF_WIDTH", 100.0)
    report = spectrum([str(runs / "plain")], data=data, limit=Limit(3600.0, ends_early=True), console=quiet())
    assert report.passport.data.images == 16      # at the first check of the intervals
    assert "every delta is known" in report.passport.stopped


def test_autoencoders_of_one_name_get_different_labels(runs, tmp_path):
    paths = [tmp_path / name / "ckpt.safetensors" for name in ("a/dsm", "b/dsm")]
    for path in paths:
        path.parent.mkdir(parents=True)
        shutil.copy(runs / "plain" / "ckpt.safetensors", path)
    codecs = [open_tokenizer(str(what)) for what in (paths[0], paths[1].parent, "control:crop", "control:crop")]
    assert _labels(codecs) == ["a/dsm", "b/dsm", "crop (3)", "crop (4)"]
    assert _labels([codecs[0], codecs[0]]) == ["a/dsm (1)", "a/dsm (2)"]
    assert _labels(codecs[1:3]) == ["dsm", "crop"]


def test_an_unknown_published_curve_is_an_error_that_lists_the_known_ones(data):
    with pytest.raises(RecipeError, match=r"celeba/dms: no such curve[\s\S]*celeba/dsm"):
        spectrum(["images"], data=data, published=["celeba/dms"], console=quiet())


def test_images_that_an_autoencoder_cannot_encode_are_refused(tmp_path, data):
    section = SDVAE(downsample=64, latent_channels=2, channels=(4,) * 7, blocks_per_level=1, norm_groups=2)
    write_autoencoder(tmp_path / "deep.safetensors", section.build(), {})
    with pytest.raises(CheckpointError, match=r"deep\.safetensors: .*32x32 is smaller than one latent cell[\s\S]*--data"):
        spectrum([str(tmp_path / "deep.safetensors")], data=data, console=quiet())


def test_autoencoders_of_two_image_sizes_need_given_images(runs, tmp_path):
    autoencoder = SDVAE(downsample=4, latent_channels=3, channels=(8, 8, 8), blocks_per_level=1, norm_groups=4).build()
    write_autoencoder(tmp_path / "big" / "ckpt.safetensors", autoencoder, {"recipe": {"data": {"image_size": 64}}})
    with pytest.raises(CheckpointError, match=r"plain 32 px, big 64 px"):
        spectrum([str(runs / "plain"), str(tmp_path / "big")], console=quiet())


def test_a_live_spectrum_is_a_picture():
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    picture = live_spectrum(images, images[:, :, ::4, ::4] * 100, delta=1.0, note="step 5")
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 3
    assert picture.float().std() > 1


def test_the_snr_threshold_is_used_stated_and_checked(data):
    asked = spectrum(["pixels"], data=data, num_images=6, snr_threshold=4.0, console=quiet())
    plain = spectrum(["pixels"], data=data, num_images=6, console=quiet())
    (part,), (usual,) = ([one.lens.autoregression for one in report.autoencoders] for report in (asked, plain))
    assert (asked.passport.snr_threshold, plain.passport.snr_threshold) == (4.0, 1.0)
    expected = [4 ** (-1 / part.exponent) * value for value in usual.processes[0].predicted]
    assert part.processes[0].predicted == pytest.approx(expected)
    assert "--snr-threshold 4" in _command(asked) and "--snr-threshold" not in _command(plain)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(RecipeError, match=r"--snr-threshold .*: must be a positive number"):
            spectrum(["control:crop"], data=data, snr_threshold=bad, console=quiet())
