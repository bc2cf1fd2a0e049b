"""Samples and references of several sizes: what clean-fid allows is scored, and the passport says so."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid.resize import make_resizer
from PIL import Image
from torch_fidelity.metric_kid import kid_features_to_metric
from torchvision.models import squeezenet1_1

from smtool.commands.evaluate.evaluation import evaluate
from smtool.commands.evaluate.result import SampleEvaluation
from smtool.commands.sample.files import write_npz
from smtool.errors import DataError
from smtool.evaluation.options import EvalOptions
from smtool.features.load import load_extractor
from smtool.report.console import Console

MIXED = [(32, 32), (48, 24), (20, 60)]
EACH = 4


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """Folders a and b of random images of three sizes; equal: of one size. The working folder is theirs."""
    monkeypatch.chdir(tmp_path)
    for key, (name, sides) in enumerate({"a": MIXED, "b": MIXED, "equal": [(24, 40)]}.items()):
        Path(name).mkdir()
        for number in range(EACH * len(MIXED)):
            height, width = sides[number % len(sides)]
            pixels = np.random.default_rng([key, number]).integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(f"{name}/{number:02d}.png")
    return tmp_path


@pytest.fixture
def squeezenet(sets):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(squeezenet1_1(weights=None).state_dict(), sets / "squeezenet1_1_torchvision_fp16.pth")
    return load_extractor("squeezenet", weights_dir=sets)


def scored(what, console=None, **options):
    return evaluate(what, EvalOptions(**options), console=console or Console(quiet=True))


def test_a_folder_of_several_sizes_is_scored_by_clean_fids_resize_of_each_image(sets, squeezenet):
    result = scored("a", reference="b", features=["squeezenet"], weights_dir=sets)
    resize = make_resizer("PIL", False, "bicubic", (224, 224))

    def features(name):
        prepared = [resize(np.asarray(Image.open(path))) for path in sorted(Path(name).iterdir())]
        x = (torch.from_numpy(np.stack(prepared)).permute(0, 3, 1, 2) - squeezenet.mean) / squeezenet.std
        return squeezenet.network(x).flatten(1).double()

    with torch.no_grad():
        options = {"kid_subsets": 1, "kid_subset_size": EACH * len(MIXED), "rng_seed": 0, "verbose": False}
        expected = kid_features_to_metric(features("a"), features("b"), **options)["kernel_inception_distance_mean"]
    # positions of the resize are float32 in torch and float64 in Pillow
    assert result.scores["kid_squeezenet"].value == pytest.approx(expected, rel=1e-3)
    passport = result.scores["kid_squeezenet"].passport
    counts = "mixed sizes (4 of 20x60, 4 of 32x32, 4 of 48x24)"
    assert passport.image_sizes == passport.reference_sizes == counts
    assert passport.warning == (
        f"images of {counts}, reference of {counts} (height x width in px): each image is resized by itself"
    )
    assert result.image_size == ()


def test_a_reference_of_another_size_is_compared_with_a_warning_everywhere(sets, screen):
    console, shown = screen
    write_npz(Path("large.npz"), np.random.default_rng(0).integers(0, 256, (12, 48, 40, 3), np.uint8), None)
    result = scored("equal", console, reference="large.npz", json_path=Path("scores.json"), table_path=Path("scores.csv"))
    passport = result.scores["fd_random"].passport
    assert (passport.image_sizes, passport.reference_sizes) == ("24x40", "48x40")
    done = "images are not resized, so their sizes change these features"
    warning = f"images of 24x40, reference of 48x40 (height x width in px): {done}"
    assert passport.warning == warning
    assert " ".join(shown().split()).count(warning) == 1
    assert SampleEvaluation.model_validate_json(Path("scores.json").read_text()) == result
    rows = list(csv.DictReader(Path("scores.csv").read_text().splitlines()))
    assert {(row["image_sizes"], row["reference_sizes"], row["warning"]) for row in rows} == {("24x40", "48x40", warning)}


def test_equal_sizes_give_no_warning(sets, screen):
    console, shown = screen
    result = scored("equal", console, reference="equal")
    assert {score.passport.warning for score in result.scores.values()} == {""}
    assert result.image_size == (24, 40)
    assert "resized by itself" not in shown() and "not used" not in shown()


def test_a_built_in_reference_needs_samples_of_one_size(sets):
    with pytest.raises(DataError, match=r"several: mixed sizes \(4 of 20x60, 4 of 32x32, 4 of 48x24\)") as caught:
        scored("a", reference="builtin:photos")
    assert "smtool prepare builtin:photos --size SIZE" in str(caught.value)


def test_what_is_changed_or_not_used_is_said_with_its_number(sets, screen):
    console, shown = screen
    Path("equal/notes.txt").write_text("about these images")
    Path("equal/.hidden.png").write_bytes(Path("equal/00.png").read_bytes())
    Image.fromarray(np.full((24, 40), 4_000, np.uint16)).save("equal/deep.png")
    frames = [Image.new("RGB", (40, 24), (level, 0, 0)) for level in (10, 200)]
    frames[0].save("equal/moving.gif", save_all=True, append_images=frames[1:])
    result = scored("equal", console, reference="b")
    assert result.samples.count == EACH * len(MIXED) + 2
    assert result.samples.remarks == {
        "16 bits a channel, 12 of them used": 1,
        "several frames or pages, the first is used": 1,
    }
    assert result.samples.left_out == {"hidden": 1, "not an image (.txt)": 1}
    text = " ".join(shown().split())
    assert "equal, unusual images: 1 with " in text and "1 with several frames or pages, the first is used" in text
    assert "equal: its images of 16 bits are dark, because no level is above 4095." in text
    assert "equal: 2 files are not used: 1 hidden; 1 not an image (.txt)." in text
