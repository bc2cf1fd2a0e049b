import pytest
import torch

from smtool.datasets import open_images
from smtool.errors import CheckpointError
from smtool.networks.tokenizer import point_posterior
from smtool.pipelines.spectrum.budget import Counts
from smtool.pipelines.spectrum.measure import Pass, measure
from smtool.pipelines.spectrum.passes import PassMeter
from smtool.pipelines.spectrum.ring_tables import LatentRings
from smtool.pipelines.spectrum.subjects import NUM_KEPT, Subject, open_measured, open_subjects
from smtool.report.console import Console
from smtool.spectrum import PHYSICAL, spectrum_of
from smtool.tokenizers import Tokenizer
from smtool.tokenizers.functions import FunctionTokenizer


@pytest.fixture
def shards(data):
    return open_images(data, "val", image_size=32)


def passed(shards, names, data, *, limit, budget=None) -> Pass:
    subjects, _ = open_subjects(names, [PHYSICAL], data=data, downsample_pad=None, weights_dir=None, device="cpu")
    console = Console(quiet=True)
    return measure(shards, subjects, [PHYSICAL], limit=limit, budget=budget, device="cpu", console=console)


def test_every_image_is_encoded_once_by_everyone(shards, data, runs):
    gathered = passed(shards, [str(runs / "plain"), "control:crop"], data, limit=40)
    assert [subject.meter.encode.images for subject in gathered.subjects] == [40, 40]
    assert [subject.meter.decode.images for subject in gathered.subjects] == [0, 0]
    expected = spectrum_of(shards.read(range(40)).images, PHYSICAL).power
    torch.testing.assert_close(gathered.images.own(PHYSICAL).power, expected, rtol=1e-5, atol=1e-10)
    assert len(gathered.units.groups) == 40


def test_only_the_first_images_and_latents_are_kept_whole(shards, data):
    gathered = passed(shards, ["control:crop"], data, limit=48)
    torch.testing.assert_close(gathered.first_images, shards.read(range(NUM_KEPT)).images)
    latents = gathered.subjects[0].rings.first_latents
    torch.testing.assert_close(latents, gathered.subjects[0].codec.encode(gathered.first_images).mode())
    assert gathered.counts == Counts.default(48)


def test_a_budget_sets_aside_what_the_sections_need(shards, data, monkeypatch):
    monkeypatch.setattr("smtool.pipelines.spectrum.measure.affordable", lambda *_, **__: Counts(4, 4, 4, seconds=1e9))
    gathered = passed(shards, ["control:crop"], data, limit=48, budget=1e6)
    assert gathered.stopped == "the budget was spent"
    assert (len(gathered.units.groups), gathered.counts.low_pass) == (16, 4)


def test_images_alone_are_passed_too(shards, data):
    gathered = passed(shards, [], data, limit=20)
    assert gathered.images.sizes == [(32, 32)]
    assert gathered.images.own(PHYSICAL).power.shape[0] == 20


def test_an_encoder_made_for_one_size_is_opened_for_the_images(monkeypatch, data):
    asked = []

    def opened(name, *, image_size, **_) -> Tokenizer:
        asked.append(image_size)
        facts = {"source": name, "architecture": "", "digest": "", "downsample": 14, "latent_channels": 3}
        facts |= {"network": None, "label": name, "image_size": image_size or {"timm:a": 224, "timm:b": 518}[name]}
        return FunctionTokenizer(point_posterior, None, **facts)

    monkeypatch.setattr("smtool.pipelines.spectrum.subjects.open_tokenizer", opened)
    facts = {"downsample_pad": None, "weights_dir": None, "device": "cpu"}
    _, size = open_subjects(["timm:a", "timm:b"], [PHYSICAL], data="builtin:photos", **facts)
    assert (size, asked) == (224, [None, None, 224])      # the second one again, for the size of the first
    _, size = open_subjects(["timm:a"], [PHYSICAL], data=data, **facts)
    assert (size, asked[3:]) == (32, [32])


def test_folders_are_measured_at_their_own_size_and_split(data):
    images = open_measured(data, 32, Console(quiet=True))
    assert (images.split, images.image_size, len(images)) == ("val", 32, 48)


def test_a_codec_that_takes_no_such_image_is_named():
    facts = {"source": "runs/a", "architecture": "", "digest": "", "downsample": 64, "latent_channels": 3}
    codec = FunctionTokenizer(point_posterior, None, network=None, label="a", **facts)
    subject = Subject("a", codec, LatentRings("a", codec, [], keep=0), PassMeter(codec, "cpu"))
    with pytest.raises(CheckpointError, match="runs/a: an image of 32x32 is smaller than one latent cell"):
        subject.latent_size(32)
