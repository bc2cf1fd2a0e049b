import io
import time

import pytest
import torch

from smtool.diffusability.inputs.subjects import (
    Subject,
    open_measured,
    open_subjects,
)
from smtool.errors import CheckpointError
from smtool.image_shape import ImageSize
from smtool.networks.tokenizer import point_posterior
from smtool.report.console import Console
from smtool.tokenizers import Tokenizer, open_tokenizer
from smtool.tokenizers.functions import FunctionTokenizer


def test_latents_are_decoded_batch_by_batch_by_the_size_of_their_images():
    seen = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        seen.append(len(latents))
        return latents.repeat_interleave(8, -1).repeat_interleave(8, -2)

    codec = FunctionTokenizer(
        point_posterior, decode, network=None, label="", source="", architecture="", digest="", downsample=8, latent_channels=3
    )
    latents = torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = Subject("it", codec).decode_all(latents)
    assert seen == [4, 4, 3]
    torch.testing.assert_close(images[:, :, ::8, ::8], latents)


def test_nothing_is_reconstructed_without_a_decoder():
    crop = open_tokenizer("control:crop")
    latents = torch.zeros(1, 3, 4, 4)
    assert Subject("it", crop).reconstruct(latents).shape == (1, 3, 32, 32)
    encoder = FunctionTokenizer(
        crop.encode, None, network=None, label="", source="", architecture="", digest="", downsample=8, latent_channels=3
    )
    assert Subject("it", encoder).reconstruct(latents) is None


def test_every_pass_is_counted_and_no_number_changes():
    plain, metered = open_tokenizer("control:crop"), Subject("it", open_tokenizer("control:crop"))
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    latents = metered.encode(images).mode()
    decoded = [metered.decode(part) for part in latents.split(2)]
    spent = time.perf_counter() - start
    assert torch.equal(latents, plain.encode(images).mode())
    assert torch.equal(torch.cat(decoded[:1]), plain.decode(latents[:2]))
    assert (metered.encoded.images, metered.decoded.images) == (5, 5)
    assert 0 < metered.encoded.seconds + metered.decoded.seconds <= spent


def test_decoded_images_are_reported_within_a_block_only():
    codec, said = Subject("it", open_tokenizer("control:crop")), []
    latents = torch.zeros(3, 3, 4, 4)
    codec.decode(latents)
    with codec.reporting(said.append):
        codec.decode(latents)
        codec.decode(latents[:1])
    codec.decode(latents)
    assert said == [3, 4]


def test_an_encoder_made_for_one_size_is_opened_for_the_images(monkeypatch, data):
    asked = []

    def opened(name, *, image_size, **_) -> Tokenizer:
        asked.append(image_size)
        facts = {"source": name, "architecture": "", "digest": "", "downsample": 14, "latent_channels": 3}
        facts |= {"network": None, "label": name, "image_size": image_size or ImageSize.of({"timm:a": 224, "timm:b": 518}[name])}
        return FunctionTokenizer(point_posterior, None, **facts)

    monkeypatch.setattr("smtool.diffusability.inputs.subjects.open_tokenizer", opened)
    facts = {"downsample_pad": None, "weights_dir": None, "device": "cpu"}
    _, size = open_subjects(["timm:a", "timm:b"], data="builtin:photos", **facts)
    assert (size.stored, asked) == (224, [None, None, ImageSize(224, 224)])      # the second is opened again, at that size
    _, size = open_subjects(["timm:a"], data=data, **facts)
    assert (size.stored, asked[3:]) == (32, [ImageSize(32, 32)])


def test_folders_are_measured_at_their_own_size_and_split(data):
    images = open_measured(data, ImageSize(32, 32), Console(quiet=True))
    assert (images.split, images.image_size.stored, len(images)) == ("val", 32, 48)


def test_training_images_are_measured_aloud_where_few_are_held_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = io.StringIO()
    images = open_measured("builtin:photos?train=24&val=15", 16, Console(file=shown))
    assert (images.split, len(images)) == ("train", 24)
    assert "15 validation images are fewer than 16; its training images are measured." in " ".join(shown.getvalue().split())
    again = io.StringIO()
    assert open_measured(str(images.folder), 16, Console(file=again)).split == "train"
    assert "15 validation images are fewer than 16" in " ".join(again.getvalue().split())


def test_a_codec_that_takes_no_such_image_is_named():
    facts = {"source": "runs/a", "architecture": "", "digest": "", "downsample": 64, "latent_channels": 3}
    codec = FunctionTokenizer(point_posterior, None, network=None, label="a", **facts)
    subject = Subject("a", codec)
    with pytest.raises(CheckpointError, match="runs/a: an image of 32x32 is smaller than one latent cell"):
        subject.latent_size(ImageSize(32, 32))


def test_a_transformers_checkpoint_is_its_autoencoder_with_its_statistics(studio, tmp_path):
    run = studio.train(tmp_path / "white", "latents.stats=spectral", "latents.flatten=white", "steps=1")
    facts = {"downsample_pad": None, "weights_dir": None, "device": "cpu"}
    (subject,), size = open_subjects([str(run)], data="builtin:photos", **facts)
    assert (subject.label, subject.codec.source, size) == ("white", str(run), ImageSize(32, 32))
    assert subject.codec.digest == open_tokenizer("runs/tiny").digest
    assert subject.codec.stats.name == "spectral (flatten = white)"
    assert subject.latent_size(size) == (8, 8)
    with pytest.raises(CheckpointError, match=r"give 16x16 latent cells, but its .* of 8x8 cells\.\n  Pass images of 32 px"):
        subject.latent_size(ImageSize(64, 64))
