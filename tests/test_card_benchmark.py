"""benchmarks/card on a CPU at small sizes: what it compares, what it notices, and what is left of a run that is cut."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.card import kernels, methods, rates
from benchmarks.card.__main__ import main
from benchmarks.card.correctness import compared
from benchmarks.card.findings import Findings
from smtool.recipe import TrainDiT
from smtool.regularizers import Regularizers


def _rows(path: Path) -> list[dict]:
    return json.loads(path.read_text())["rows"]


def _run(tmp_path: Path, only: str) -> list[dict]:
    main(["--device", "cpu", "--tiny", "--compile", "off", "--json", str(tmp_path / "card.json"), "--only", only])
    return _rows(tmp_path / "card.json")


def test_a_method_is_compared_in_each_mode_of_the_device(tmp_path):
    rows = _run(tmp_path, "regularizer esm")
    assert [(row["name"], row["outcome"]) for row in rows] == [("regularizer esm, fp32", "ok"), ("regularizer esm, bf16", "ok")]
    assert rows[0]["loss"] == 0 and 0 < rows[1]["gradient"] < 0.1


def test_a_step_has_a_rate_beside_the_measured_peak(tmp_path):
    peak, step = _run(tmp_path, "SiT-B/2")
    assert (peak["part"], step["name"], step["outcome"]) == ("peak", "SiT-B/2", "ok")
    assert step["share_of_peak"] == pytest.approx(step["tflop"] / (1e-3 * step["ms"]) / peak["used_tflops"])


@pytest.mark.parametrize("load", rates.LOADS, ids=lambda load: load.name)
def test_loads_are_valid_recipes_of_the_size_that_their_names_say(load):
    tables = load.tables(load.batches[0], tiny=False)
    assert tables.data.batch == load.batches[0] and tables.precision == "bf16"
    if load.kind == "autoencoder":
        assert (tables.model.downsample, tables.data.image_size.height, tables.perceptual.net) == (16, 256, "vgg")
        return
    assert f"SiT-{tables.model.size}/{tables.model.patch}" in load.name
    assert tables.compile == load.compiled and (tables.alignment is not None) == load.aligned


def test_jpeg_files_are_decoded_beside_pillow(tmp_path):
    (row,) = _run(tmp_path, "JPEG*")
    assert (row["part"], row["outcome"], row["largest_levels"]) == ("decoder", "ok", 0)      # on a CPU by the same library


def test_every_method_of_the_recipes_is_compared(monkeypatch):
    """By its tables, which are validated here; nothing is built."""
    monkeypatch.setattr(methods, "autoencoder_task", lambda tables, device: tables)
    monkeypatch.setattr(methods, "diffusion_task", lambda tables, device: tables)
    *found, joint = list(methods.methods())
    tables = {one.name: one.build("cpu") for one in found}
    assert set(Regularizers.model_fields) == {name for one in tables.values() if not isinstance(one, TrainDiT)
                                              for name in one.regularizers.present}
    assert {"process flow", "process ddpm", "process vp-sde", "alignment irepa", "discriminator dino", "transformer uvit",
            "autoencoder dc-ae"} < set(tables)
    assert "end to end" in joint.name


def _broken(change) -> dict[str, dict]:
    """Rows by mode of a transformer whose second copy, that of the device, is changed."""
    built = []

    def build(device):
        built.append(methods.diffusion_task(methods.latent_tables(), device))
        if len(built) == 2:
            change(built[1])
        return built[-1]

    method = methods.Method("broken", build, methods.latent_batch)
    return {mode.name: difference.row(mode) for mode, difference in compared(method, "cpu")}


def test_a_method_that_is_wrong_on_the_device_is_noticed():
    assert all("outcome" not in row for row in _broken(lambda task: None).values())

    def scaled(times: float, outputs: float):
        def change(task):
            predict = task.network.predict

            def changed(x, t, labels, tap):
                found = predict(x, times * t, labels, tap)
                return replace(found, output=outputs * found.output)

            task.network.predict = changed

        return change

    assert _broken(scaled(1.05, 1))["fp32"]["outcome"] == "differs"
    rows = _broken(scaled(1, 1.2))
    assert rows["fp32"]["outcome"] == rows["bf16"]["outcome"] == "differs"
    assert all(row["outcome"] == "differs" for row in _broken(lambda task: setattr(task, "cosine", float("nan"))).values())


def test_a_wrong_kernel_is_noticed():
    x = torch.randn(2, 32, 6, 10).contiguous(memory_format=torch.channels_last)
    right = kernels.norm_row(kernels.norms.norm_silu, True, x.clone(memory_format=torch.preserve_format))
    assert right["difference"] < 1e-5 and "outcome" not in right
    wrong = kernels.norm_row(lambda norm, images: 1.001 * kernels.norms.norm_silu(norm, images), True, x)
    assert wrong["outcome"] == "differs"
    assert "outcome" not in kernels.head_row(x.detach())


def test_a_run_that_is_cut_keeps_what_it_has(tmp_path, capsys):
    findings = Findings(tmp_path / "card.json", {"device": "none"}, seconds=60)
    findings.add("a", "quick", lambda: {"value": 1.5}, seconds=5)
    findings.add("a", "slow", lambda: time.sleep(30), seconds=0.05)
    findings.add("a", "faulty", lambda: {"value": 1 / 0}, seconds=5)
    assert [row["outcome"] for row in _rows(tmp_path / "card.json")] == ["ok", "not run", "failed"]
    assert findings.rows[1]["reason"] == "not finished within 0.05 s" and "ZeroDivisionError" in findings.rows[2]["reason"]
    assert [row["name"] for row in findings.failed] == ["faulty"]
    late = Findings(tmp_path / "late.json", {}, seconds=0)
    assert late.add("a", "b", dict, seconds=5)["reason"] == "the time of the whole run was used up"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_card_one_sentence_says_so(capsys):
    main([])
    assert capsys.readouterr().out.startswith("Not run: no CUDA device")
