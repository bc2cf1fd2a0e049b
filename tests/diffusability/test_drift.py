"""The section on drift: real autoencoders whose latents are known functions of each other."""

import io
import json

import numpy as np
import pytest
import torch

from smtool.checkpoints import write_autoencoder
from smtool.data import open_images
from smtool.diffusability.inputs.pairs import LatentPairs, unlike_latents
from smtool.diffusability.inputs.subjects import PassSeconds, Subject
from smtool.diffusability.page import chapters, report_page
from smtool.diffusability.protocol import Protocol
from smtool.diffusability.report import Report
from smtool.diffusability.sections import drift
from smtool.diffusability.sections.drift import LARGEST_LOSS, LARGEST_UNEXPLAINED, Mapped, judged
from smtool.diffusability.sections.parts import Estimate, Reason
from smtool.diffusability.spectrum import spectrum
from smtool.image_shape import ImageSize
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import point_posterior
from smtool.report.console import Console
from smtool.spectrum.units import Units
from smtool.tokenizers import load_autoencoder
from smtool.tokenizers.functions import FunctionTokenizer

SCALE, SHIFT = (2.0, -0.5, 1.5), (0.3, 1.0, -2.0)
ROTATION = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]


def shrunk(images):
    return torch.nn.functional.avg_pool2d(images, 2)


def enlarged(latents):
    return torch.nn.functional.interpolate(latents, scale_factor=2.0, mode="nearest")


def subject(label, to, back, *, decodes=True):
    """An autoencoder whose latents are `to` of 2x2 means, and whose decoder enlarges `back` of its latents."""
    codec = FunctionTokenizer(
        lambda images: point_posterior(to(shrunk(images))), (lambda z: enlarged(back(z))) if decodes else None, network=None,
        label=label, source=label, architecture="", digest=label, downsample=2, latent_channels=3, deterministic=True,
    )  # fmt: skip
    return Subject(label, codec)


def column(values):
    return torch.tensor(values).view(1, 3, 1, 1)


def plain(z):
    return z


def noise_of(z):
    return torch.randn(z.shape, generator=torch.Generator().manual_seed(1))


OLD = subject("old", plain, plain)
SCALED = subject("scaled", lambda z: column(SCALE) * z + column(SHIFT), lambda z: (z - column(SHIFT)) / column(SCALE))
MIXED = subject(
    "mixed", lambda z: torch.einsum("ij,njhw->nihw", ROTATION, z), lambda z: torch.einsum("ji,njhw->nihw", ROTATION, z)
)
UNRELATED = subject("unrelated", noise_of, plain)
STATS = LatentStats("channel", torch.zeros(3), torch.ones(3), 1, "-")


def measured(other, images, *, groups=None, decoded=16, stats=STATS):
    units = Units("photograph", groups or [str(i) for i in range(len(images))])
    pairs = LatentPairs(OLD, other, units, keep=32)
    for part in images.split(5):
        pairs.add(OLD.encode(part).mode(), other.encode(part).mode())
    return drift.measure(pairs, images[:32], stats, decoded=decoded)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return open_images("builtin:photos?train=24&val=4", "train", image_size=16, root=folder).read(range(24)).images


def test_the_same_latents_are_a_drop_in(images):
    found = measured(subject("again", plain, plain), images)
    assert (found.fit, found.as_is.unexplained.value) == ("same", pytest.approx(0, abs=1e-12))
    assert found.as_is.loss.value == pytest.approx(0, abs=1e-6)
    said = "Drop-in for transformers trained on the latents of old: the latents are the same."
    assert drift.findings(found)[0].sentence == said


def test_scaled_channels_fit_after_the_map_of_each_channel_which_is_stated(images):
    found = measured(SCALED, images)
    assert found.fit == "channels"
    assert found.as_is.unexplained.value > 1
    assert found.channels.unexplained.value < 1e-10
    np.testing.assert_allclose(found.scale, 1 / np.array(SCALE), rtol=1e-4)
    np.testing.assert_allclose(found.shift, -np.array(SHIFT) / np.array(SCALE), rtol=1e-4)
    y = shrunk(images[1::2][:16])
    targets = images[1::2][:16].numpy()
    for mapped, latents in ((found.as_is, (y - column(SHIFT)) / column(SCALE)), (found.channels, y)):
        decoded = enlarged(latents).clamp(-1, 1).numpy()
        expected = (10 * np.log10(4 / ((decoded - targets) ** 2).mean((1, 2, 3)))).mean()
        assert mapped.psnr.value == pytest.approx(expected, abs=1e-3)
    own = found.psnr_own.value
    assert found.psnr_reference.value == pytest.approx(own, abs=1e-3)
    assert found.as_is.loss.value == pytest.approx(own - found.as_is.psnr.value, abs=1e-9)
    assert "which `smtool export --align` folds into the weights" in drift.findings(found)[0].sentence


def test_rotated_channels_fit_only_after_a_map_over_channels(images):
    found = measured(MIXED, images)
    assert found.fit == "linear"
    assert found.channels.unexplained.value > LARGEST_UNEXPLAINED > 1e-10 > found.linear.unexplained.value
    assert "which `smtool export --align` does not fold into weights" in drift.findings(found)[0].sentence


def test_unrelated_latents_need_a_new_transformer(images):
    found = measured(UNRELATED, images)
    assert found.fit == "anew"
    assert drift.findings(found)[0].sentence.startswith("A transformer must be trained anew")
    assert found.linear.unexplained.value > 0.9


def test_maps_are_not_evaluated_on_the_images_they_were_fitted_on(images):
    """The latents of even images are scaled, those of odd images are not: a map fitted on all images would miss less."""
    odd = (torch.arange(len(images)) % 2).view(-1, 1, 1, 1).bool()
    y = shrunk(images)
    x = torch.where(odd, y, 3 * y)
    pairs = LatentPairs(OLD, SCALED, Units("image", [str(i) for i in range(len(images))]), keep=32)
    pairs.add(y, x)
    found = drift.measure(pairs, images, STATS, decoded=0)
    expected = (y - x / 3)[1::2].square().sum() / (y[1::2] - y[1::2].mean((0, 2, 3), keepdim=True)).square().sum()
    assert found.channels.unexplained.value == pytest.approx(expected.item(), rel=0.02)
    assert found.as_is.unexplained.value < 1e-12
    assert (found.fitted, found.evaluated) == (12, 12)


def test_crops_of_one_photograph_are_in_one_half(images):
    found = measured(SCALED, images, groups=["a"] * 6 + ["b"] * 10 + ["c"] * 8)
    assert (found.fitted, found.evaluated, found.decoded) == (14, 10, 10)
    assert found.channels.psnr.half_width is None       # one photograph has no interval
    reason = measured(SCALED, images, groups=["a"] * 24)
    assert reason.reason == "not measured: it needs at least two photographs, one to fit maps on and one to evaluate them on"


def test_channels_are_weighted_by_the_references_normalization(images):
    """All that x misses is in channel 0, so a larger std of channel 0 lowers the share."""
    off = subject("off", lambda z: torch.cat([noise_of(z[:, :1]), z[:, 1:]], 1), plain)
    equal = measured(off, images, decoded=0)
    light = measured(off, images, decoded=0, stats=LatentStats("channel", torch.zeros(3), torch.tensor([10.0, 1, 1]), 1, "-"))
    assert equal.as_is.channels == light.as_is.channels
    assert light.as_is.unexplained.value < 0.1 * equal.as_is.unexplained.value


def test_without_a_decoder_only_shares_are_measured(images):
    found = measured(subject("blind", plain, plain, decodes=False), images)
    assert (found.fit, found.as_is.psnr, found.psnr_own, found.decoded) == ("same", None, None, 0)


def mapped(missed, loss):
    estimate = Estimate(value=loss, half_width=None)
    return Mapped(
        unexplained=Estimate(value=missed, half_width=None), bands=[], bands_half_width=[], channels=[], cells=[],
        loss=None if loss is None else estimate,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("as_is", "channels", "linear", "fit"),
    [
        ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), "same"),
        ((LARGEST_UNEXPLAINED, LARGEST_LOSS), (0.0, 0.0), (0.0, 0.0), "drop-in"),
        ((LARGEST_UNEXPLAINED, LARGEST_LOSS + 0.01), (0.01, 0.0), (0.0, 0.0), "channels"),
        ((LARGEST_UNEXPLAINED + 0.01, 0.0), (0.2, 0.0), (0.01, 0.1), "linear"),
        ((0.3, 0.0), (0.2, 0.0), (0.1, 0.0), "anew"),
        ((0.01, 3.0), (0.01, 3.0), (0.01, 3.0), "anew"),
        ((0.01, None), (0.01, None), (0.01, None), "drop-in"),
    ],
)
def test_the_judgement_needs_both_limits(as_is, channels, linear, fit):
    assert judged({"as_is": mapped(*as_is), "channels": mapped(*channels), "linear": mapped(*linear)}) == fit


def test_latents_of_another_shape_are_not_measured(images):
    coarse = FunctionTokenizer(
        lambda images: point_posterior(shrunk(shrunk(images))), None, network=None, label="coarse", source="", architecture="",
        digest="", downsample=4, latent_channels=3, deterministic=True,
    )  # fmt: skip
    found = unlike_latents(OLD, Subject("coarse", coarse), ImageSize(16, 16))
    assert found == "not measured: its latents are 3x4x4, those of old are 3x8x8"
    assert drift.measure(Reason(reason=found), images, STATS, decoded=4) == Reason(reason=found)
    table = drift.table({"coarse": Reason(reason=found)})
    assert table.rows == (("coarse", found),)


@pytest.fixture(scope="module")
def report(runs, data, tmp_path_factory):
    """(report, console text) of `plain`, of `plain` with a larger encoder output, and of `coarse`, without a time limit."""
    later = load_autoencoder(runs / "plain")
    with torch.no_grad():
        later.quant_conv.weight.mul_(1.5)
    path = tmp_path_factory.mktemp("later") / "later.safetensors"
    write_autoencoder(path, later, {})
    shown = io.StringIO()
    what = [str(runs / "plain"), str(path), str(runs / "coarse")]
    return spectrum(what, data=data, num_images=20, console=Console(file=shown)), shown.getvalue()


def test_a_report_states_the_drift_of_every_later_autoencoder(report):
    found, shown = report
    first, later, coarse = found.autoencoders
    assert first.drift is None and "drift" not in json.loads(json.dumps(found.to_json()))["autoencoders"][0]
    np.testing.assert_allclose(later.drift.scale, 2 / 3, rtol=1e-3)
    assert later.drift.channels.unexplained.value < 1e-6 < later.drift.as_is.unexplained.value
    assert coarse.drift.reason.startswith("not measured: its latents are 3x4x4")
    text = " ".join(shown.split())
    assert "DRIFT" in text and "coarse: not measured: its latents are 3x4x4, those of plain are 3x8x8" in text
    assert found.passport.images["drift"] == 16
    assert Report.model_validate_json(json.dumps(found.to_json())).autoencoders[1].drift.fit == later.drift.fit
    topics = [one.topic for one in later.verdict]
    assert "drift" in topics and "drift" not in [one.topic for one in first.verdict + coarse.verdict]


def test_the_page_has_a_chapter(report, tmp_path):
    found, _ = report
    report_page(found, {}, chapters(found)).write(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "Drift: does a transformer of the first autoencoder still fit?" in text
    assert "missed, map over channels" in text


def test_a_report_of_one_autoencoder_has_no_drift(runs, data):
    found = spectrum([str(runs / "plain")], data=data, num_images=16, console=Console(quiet=True))
    assert "drift" not in json.dumps(found.to_json())


def test_decodings_of_drift_are_in_the_estimate_and_in_the_cuts():
    full = Protocol.full(240, ImageSize(256, 256), drift=True)
    assert (full.drift_images, Protocol.full(240, ImageSize(256, 256)).drift_images) == (16, 0)
    without = Protocol.full(240, ImageSize(256, 256))
    passes = [PassSeconds(0.1, 0.5, ImageSize(256, 256))]
    assert full.decoding_seconds(passes) - without.decoding_seconds(passes) == pytest.approx(1.15 * 4 * 16 * 0.5)
    cuts = list(full._cuts(()))
    assert [one.drift for one in cuts] == sorted((one.drift for one in cuts), reverse=True)
    assert not cuts[-1].drift
    assert "drift of decoders not measured" in cuts[-1].cuts_from(full)
