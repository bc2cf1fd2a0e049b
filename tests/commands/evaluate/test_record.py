"""Files of an evaluation: CSV with all digits and the passport, Markdown with the table, JSON."""

import csv
import json
import math

import pytest
import torch
from pydantic import ValidationError

from smtool.commands.evaluate.record import leave
from smtool.commands.evaluate.result import (
    Checkpoint,
    Images,
    Reconstructed,
    ReconstructionEvaluation,
    SampleEvaluation,
    Samples,
    computation,
)
from smtool.evaluation.options import EvalOptions
from smtool.evaluation.scores import Passport, ReconstructionScore, SamplePassport, SampleScore
from smtool.inference.sampling import Sampling

COMMON = {
    "extractor": "random", "extractor_sha256": "e" * 64, "resize": "none", "codec": "none", "protocol": "clean",
    "images_sha256": "i" * 64, "reference_sha256": "r" * 64, "seed": 3,
}  # fmt: skip
DRAWN = Sampling(
    checkpoint="c" * 64,
    step=7,
    weights="average",
    sampler={"kind": "euler", "steps": 20, "cfg_scale": 1.5},
    labels="balanced",
    seed=3,
    rounding="truncate",
)
IMAGES = {"source": "photos", "folder": "data/photos", "split": "val", "image_size": 32, "sha256": "i" * 64}


def reconstruction():
    judged = {"metric": "psnr", "pixels": "uint8", "rounding": "nearest", "posterior": "mode"}
    score = ReconstructionScore(
        name="psnr",
        title="PSNR, dB",
        better="higher",
        value=30.123456789,
        half_width=0.25,
        notes=("one thing", "another"),
        passport=Passport(num_images=1200, num_reference=1200, **judged, **COMMON),
    )
    return ReconstructionEvaluation(
        smtool="0.1.0",
        checkpoint=Checkpoint(path="runs/dsm/ckpt.safetensors", sha256="a" * 64, step=5),
        images=Reconstructed(**IMAGES, trained_on=False),
        reference=Images(**IMAGES),
        warnings={},
        computed=computation("cpu"),
        scores={"psnr": score},
    )


def generation(drawn):
    score = SampleScore(
        name="fd_random",
        title="FD random",
        better="lower",
        value=0.1,
        half_width=None,
        notes=(),
        passport=SamplePassport(metric="frechet distance", num_images=9, num_reference=None, sampling=drawn, **COMMON),
    )
    return SampleEvaluation(
        smtool="0.1.0",
        samples=Samples(source="samples of runs/sit", sha256="s" * 64, count=9, drawn=drawn),
        reference=None,
        image_size=(32, 32),
        computed=computation("cpu"),
        scores={"fd_random": score},
    )


def left(evaluation, folder, name):
    options = EvalOptions(json_path=folder / "scores.json", table_path=folder / name)
    leave(evaluation, options, title="Ours | theirs", console=CONSOLE)


class CONSOLE:
    print = staticmethod(lambda *things: None)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_has_all_digits_and_the_passport(tmp_path):
    left(reconstruction(), tmp_path, "a.csv")
    (row,) = rows(tmp_path / "a.csv")
    assert (row["what"], row["checkpoint"], row["step"]) == ("runs/dsm/ckpt.safetensors", "a" * 64, "5")
    assert (float(row["value"]), float(row["half_width_95"]), row["better"]) == (30.123456789, 0.25, "higher")
    assert (row["posterior"], row["num_images"], row["sampler"], row["notes"]) == ("mode", "1200", "", "one thing; another")
    left(generation(DRAWN), tmp_path, "b.csv")
    (drawn,) = rows(tmp_path / "b.csv")
    assert list(drawn) == list(row)      # so that several files can be joined
    assert (drawn["what"], drawn["checkpoint"], drawn["step"]) == ("samples of runs/sit", "c" * 64, "7")
    assert (drawn["sampler"], drawn["steps"], drawn["cfg_scale"], drawn["weights"]) == ("euler", "20", "1.5", "average")
    assert (row["pixels"], row["rounding"], drawn["pixels"], drawn["rounding"]) == ("uint8", "nearest", "uint8", "truncate")
    assert (drawn["half_width_95"], drawn["posterior"], drawn["num_reference"]) == ("", "", "")


def test_images_of_unknown_origin_have_no_sampler(tmp_path):
    left(generation(Sampling()), tmp_path, "b.csv")
    (row,) = rows(tmp_path / "b.csv")
    assert {row[name] for name in ("checkpoint", "step", "weights", "labels", "sampler", "steps", "cfg_scale")} == {""}


def test_markdown_is_the_table_with_the_sentences_below_it(tmp_path):
    left(reconstruction(), tmp_path, "a.md")
    text = (tmp_path / "a.md").read_text()
    assert "| PSNR, dB ↑ | 30.12 ± 0.25 | 1,200 | eeeeeeee |" in text
    assert "PSNR, dB: one thing.\n" in text
    assert text.endswith("Protocol clean: the posterior's mode is decoded.\n\nComputed in float32 on cpu.\n")


def test_json_says_how_it_was_computed(tmp_path):
    evaluation = reconstruction()
    left(evaluation, tmp_path, "a.md")
    written = (tmp_path / "scores.json").read_text()
    assert ReconstructionEvaluation.model_validate_json(written) == evaluation
    assert json.loads(written)["computed"] == {"device": "cpu", "precision": "float32", "torch": torch.__version__}
    assert json.loads(written)["scores"]["psnr"]["passport"]["num_images"] == 1200


def test_a_score_that_is_not_finite_is_an_error():
    """JSON has no NaN, and an infinite PSNR is None."""
    score = dict(reconstruction().scores["psnr"])
    with pytest.raises(ValidationError, match="finite"):
        ReconstructionScore(**score | {"value": math.nan})


@pytest.mark.parametrize(("allowed", "precision"), [(True, "float32, convolutions in TF32"), (False, "float32")])
def test_tf32_on_a_gpu_is_reported(monkeypatch, allowed, precision):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"name of {device}")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    assert computation("cuda:1").device == "name of cuda:1"
    assert computation("cuda:1").precision == precision
