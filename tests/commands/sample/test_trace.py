"""`smtool sample --trace`: against closed forms of Gaussian latents, without an effect on samples, files and errors."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from smtool.commands.sample.trace import SHARE, Trace, trace_sampling
from smtool.commands.sample.trace_files import table, write_trace
from smtool.data.batches import to_uint8
from smtool.diffusion import DDPM, Flow, Sampler
from smtool.evaluation.image_sources import open_source
from smtool.inference.diffusion_model import DiffusionModel
from smtool.inference.generate import generate
from smtool.inference.sampling import Sampling
from smtool.networks.posterior import LatentStats
from smtool.networks.transformer import Prediction
from smtool.spectrum import dct2, idct2
from smtool.spectrum.radial_bands import cell_frequency
from smtool.tokenizers import open_tokenizer

SIDE = 16


class Gaussian(nn.Module):
    """The perfect network for latents whose DCT cells are independent Gaussians of variance `power`."""

    def __init__(self, process, power, target):
        super().__init__()
        self.process, self.power, self.target = process, power, target

    def forward(self, x, time, labels=None):
        t = time[0].double() / (1000 if self.target == "eps" else 1)
        alpha, sigma = (float(value) for value in self.process.alpha_sigma(t))
        cells = dct2(x.double())
        wanted = (cells * alpha * self.power, cells * sigma)      # of the data and of the noise, times the state's variance
        data, noise = (idct2(part / (alpha**2 * self.power + sigma**2)) for part in wanted)
        if self.target == "eps":
            return Prediction(noise, None)
        cosine = self.process.config.path == "cosine"
        slopes = (-math.pi / 2 * sigma, math.pi / 2 * alpha) if cosine else (-1, 1)
        return Prediction(slopes[0] * data + slopes[1] * noise, None)


def gaussian_model(config, power) -> DiffusionModel:
    """A model of 16 x 16 pixels without learned parts."""
    process = config.build()
    network = Gaussian(process, power, "eps" if config.kind == "ddpm" else "v")
    stats = LatentStats("scalar", torch.zeros(1), torch.ones(1), 1, "")
    tables = type("Tables", (), {"process": config, "precision": "fp32"})
    return DiffusionModel(tables, network, process, stats, open_tokenizer("pixels"), (3, SIDE, SIDE), 0, {})


def traced(model, sampler, *, images=16, batch=16):
    return trace_sampling(
        model, sampler, label="gaussian", sampling=Sampling(sampler=sampler), images=images, labels=None, seed=0, batch=batch,
        device="cpu", report=lambda done, total: None,
    )


def falling(exponent):
    frequency = cell_frequency((SIDE, SIDE)) * SIDE
    frequency[0, 0] = 0.5
    return 4 * frequency**-exponent


@pytest.mark.parametrize("config", [Flow(), Flow(path="cosine"), DDPM()])
@pytest.mark.parametrize("kind", ["ddim", "euler", "heun", "dpm-solver++"])
def test_deterministic_samplers_settle_gaussian_bands_at_the_closed_form(kind, config):
    """x0 = q x_final, q = sqrt(SNR / (1 + SNR)), so 2 q - q^2 of the final power is explained; .9 at an SNR of .878.

    The first rings hold few cells and the process ends of DDPM keep some noise, so bands of closed form within 1 % are compared
    where the time of DDPM is not at its noisy end.
    """
    found = traced(gaussian_model(config, falling(2.0)), Sampler(kind=kind, steps=200)).trace
    explained, noise = np.array(found.pixels.explained, float), np.array(found.noise)
    # mean over a ring of cells with unlike powers: average the closed form, weighted by the power
    frequency, power = (cell.flatten().numpy() for cell in (cell_frequency((SIDE, SIDE)) * SIDE, falling(2.0)))
    for ring, centre in enumerate(found.pixels.cycles_per_side[:7]):
        cells = np.rint(2 * frequency) == round(2 * centre)
        snr = power[cells] * ((1 - noise) / noise)[:, None] ** 2
        q = np.sqrt(snr / (1 + snr))
        expected = ((2 * q - q**2) * power[cells]).sum(1) / power[cells].sum()
        middle = (noise > 0.05) & (noise < 0.9)
        np.testing.assert_allclose(explained[middle, ring], expected[middle], atol=0.04)
    crossing, settled = (np.array(row) for row in (found.latents.crossing, found.latents.settled))
    np.testing.assert_allclose(settled, crossing, atol=0.06)      # at SNR = .878 instead of 1, and by sampling
    assert np.all(np.diff(settled) <= 0) and settled[0] > settled[-1] + 0.3


def test_pixels_settle_in_images_as_in_latents():
    found = traced(gaussian_model(Flow(), falling(2.0)), Sampler(kind="heun", steps=12)).trace
    np.testing.assert_allclose(found.pixels.explained, found.latents.explained, atol=1e-5)
    np.testing.assert_allclose(found.pixels.correlation, found.latents.correlation, atol=1e-5)
    assert found.pixels.settled == found.latents.settled
    assert found.noise == found.times == pytest.approx(np.linspace(1, 1 / 12, 12).tolist())


def test_the_state_is_noise_at_first_and_has_the_mixed_power_later():
    power = falling(1.0)
    found = traced(gaussian_model(Flow(), power), Sampler(kind="heun", steps=20)).trace
    state = np.array(found.latents.state_power)
    np.testing.assert_allclose(state[0][3:], 1, atol=0.2)
    final = np.array(found.latents.final_power)
    for t, row in zip(found.times, state, strict=True):
        np.testing.assert_allclose(row[3:], ((1 - t) ** 2 * final + t**2)[3:], rtol=0.2)


def test_a_stochastic_sampler_settles_later_than_a_deterministic_one():
    model = gaussian_model(Flow(), falling(2.0))
    sde, ode = (traced(model, Sampler(kind=kind, steps=60)).trace for kind in ("euler-maruyama", "heun"))
    both = [np.nan_to_num(np.array(one.pixels.settled, float)) for one in (sde, ode)]
    assert (both[0] < both[1]).all()


def test_the_size_of_a_batch_does_not_change_the_trace():
    model, sampler = gaussian_model(Flow(), falling(1.5)), Sampler(kind="euler-maruyama", steps=5)
    whole, parts = (traced(model, sampler, images=6, batch=batch) for batch in (6, 4))
    skipped = {"seconds"}
    assert_same(whole.trace.model_dump(exclude=skipped), parts.trace.model_dump(exclude=skipped))
    assert (whole.pictures.int() - parts.pictures.int()).abs().max() <= 1


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert np.allclose(np.array(one, float), np.array(other, float), atol=1e-6, equal_nan=True)
    else:
        assert one == other


def test_the_traced_samples_are_those_that_are_generated():
    model, sampler = gaussian_model(Flow(), falling(1.5)), Sampler(kind="euler-maruyama", steps=5)
    ((_, images),) = generate(model, range(4), seed=0, sampler=sampler, labels=None, batch=4)
    found = traced(model, sampler, images=4)
    assert torch.equal(found.pictures[:, -1], images[:2])
    assert found.shown[-1] == 0 and all(a > b for a, b in pairwise(found.shown))
    assert found.pictures.shape[1] == len(found.shown)
    assert found.pictures.dtype == to_uint8(torch.zeros(1)).dtype


def test_latents_of_two_cells_have_a_reason_and_images_a_trace(finished, studio, tmp_path):
    class Doubled(nn.Module):
        def forward(self, x, time, labels=None):
            return Prediction(x, None)

    model = gaussian_model(Flow(), falling(1.0))
    codec = open_tokenizer("control:nearest")
    small = DiffusionModel(model.tables, Doubled(), model.process, model.stats, codec, (3, 2, 2), 0, {})
    found = traced(small, Sampler(kind="euler", steps=3), images=3)
    assert "3x3 cells have no rings" in found.trace.latents.reason
    assert len(found.trace.pixels.explained) == 3
    assert [row[2] for row in table(found.trace).rows] == ["-"] * 4
    write_trace(tmp_path, found)
    assert (tmp_path / "trace.png").exists()


def test_the_table_names_octaves_and_what_only_the_final_image_settles():
    found = traced(gaussian_model(Flow(), falling(4.0)), Sampler(kind="euler-maruyama", steps=4, end_time=0.3)).trace
    made = table(found)
    assert [row[0] for row in made.rows] == ["1", "2", "4", "8"]
    assert made.rows[-1][1] == made.rows[-1][2] == "end" and found.pixels.settled[-1] is None
    ring = int(np.abs(np.array(found.latents.cycles_per_side) - 4).argmin())
    assert made.rows[2][3] == f"{found.latents.crossing[ring]:.2f}"
    assert f"{100 * SHARE:g} %" in made.note


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("trace")}


@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++", "euler", "heun", "euler-maruyama"])
def test_every_sampler_gives_a_trace_and_the_same_files_as_without(studio, finished, command, tmp_path, sampler):
    arguments = ["sample", str(finished), "--num-images", "5", "--sampler", sampler, "--steps", "3", "--grid", "0"]
    assert command(*arguments, "--out", str(tmp_path / "plain"))[0] == 0
    code, out, err = command(*arguments, "--out", str(tmp_path / "traced"), "--trace")
    assert code == 0, err
    assert contents(tmp_path / "traced") == contents(tmp_path / "plain")
    assert "cycles per side" in out and "trace.json" in out
    found = Trace.model_validate(json.loads((tmp_path / "traced" / "trace.json").read_text()))
    assert (found.images, found.image_size, len(found.times), found.decodings) == (5, (32, 32), 3, 20)
    assert found.sampling.sampler.kind == sampler
    assert {path.name for path in (tmp_path / "traced").glob("trace*")} == {"trace.json", "trace.png", "trace.svg"}


def test_a_trace_is_added_to_finished_samples_and_drawn_beside_others(studio, finished, command, tmp_path):
    arguments = ["sample", str(finished), "--num-images", "4", "--steps", "3"]
    for name in ("one", "two"):
        assert command(*arguments, "--out", str(tmp_path / name))[0] == 0
    before = contents(tmp_path / "two")
    assert command(*arguments, "--out", str(tmp_path / "one"), "--trace")[0] == 0
    code, out, err = command(*arguments, "--out", str(tmp_path / "two"), "--trace", "--beside", str(tmp_path / "one"))
    assert code == 0, err
    assert contents(tmp_path / "two") == before
    assert (tmp_path / "two" / "traces.png").exists() and "traces.svg" in out
    source = open_source(str(tmp_path / "two"))
    assert (source.count, dict(source.left_out)) == (4, {})


@pytest.mark.parametrize(("change", "says", "status"), [
    (["--beside", "{folder}"], "there is no --trace", 2),
    (["--trace", "--beside", "{folder}/nothing"], "no trace.json here", 3),
    (["--trace", "--beside", "{folder}/damaged.json"], "is not a trace", 3),
    (["--trace", "--beside", "{folder}/large.json"], "is of 64x64 images, but these samples are 32x32", 3),
])
def test_wrong_traces_are_refused_before_anything_is_written(studio, finished, command, tmp_path, change, says, status):
    (tmp_path / "damaged.json").write_text('{"schema": "smtool.trace/1", "label": 3}')
    trace = traced(gaussian_model(Flow(), falling(1.0)), Sampler(kind="euler", steps=2), images=2).trace
    large = trace.model_copy(update={"image_size": (64, 64)})
    (tmp_path / "large.json").write_text(json.dumps(large.to_json()))
    arguments = [word.format(folder=tmp_path) for word in change]
    code, _, err = command("sample", str(finished), "--num-images", "2", "--out", str(tmp_path / "out"), *arguments)
    assert code == status and says in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()
