"""Images from a model in memory depend on seed and image number only, not on the batch."""

import math
from dataclasses import replace

import pytest
import torch

from smtool.data.batches import to_uint8
from smtool.diffusion import Sampler
from smtool.errors import RecipeError
from smtool.inference.diffusion_model import read_diffusion
from smtool.inference.generate import class_labels, generate
from smtool.randomness import generator

EULER = Sampler(kind="euler", steps=3, cfg_scale=1.5)
STOCHASTIC = Sampler(kind="euler-maruyama", steps=3)


@pytest.fixture(scope="module")
def model(finished):
    """The trained weights with added noise, so that the output depends on time, class and latent."""
    model = read_diffusion(finished / "ckpt.safetensors")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.network.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


def drawn(model, indices, *, batch, sampler=EULER, seed=3, labels=None):
    labels = [index % 3 for index in indices] if labels is None else labels
    parts = list(generate(model, indices, seed=seed, sampler=sampler, labels=labels, batch=batch))
    assert [index for numbers, _ in parts for index in numbers] == list(indices)
    return torch.cat([images for _, images in parts])


def noise_seen(model, monkeypatch, batch):
    """The initial noise and the noise of two steps of 64 images, as passed to the sampler."""
    seen = []

    def record(process, guided, noise, sampler, *, step_noise, observe):
        seen.append(torch.stack([noise, step_noise(0), step_noise(1)]))
        return noise

    monkeypatch.setattr("smtool.inference.generate.sample", record)
    drawn(model, range(64), batch=batch)
    return torch.cat(seen, dim=1)


def test_noise_is_the_same_bit_for_bit_in_batches_of_64_16_and_7(model, monkeypatch):
    whole = noise_seen(model, monkeypatch, 64)
    assert whole.shape == (3, 64, 2, 8, 8)
    for batch in (16, 7):
        assert torch.equal(noise_seen(model, monkeypatch, batch), whole)
    assert abs(float(whole.mean())) < 5 / math.sqrt(whole.numel())
    assert abs(float(whole.std()) - 1) < 5 / math.sqrt(whole.numel())
    flat = whole.transpose(0, 1).flatten(0, 1).flatten(1)      # all streams and steps differ
    assert len({tuple(row[:4].tolist()) for row in flat}) == 3 * 64


@pytest.mark.parametrize("sampler", [EULER, STOCHASTIC], ids=lambda sampler: sampler.kind)
def test_images_hardly_depend_on_the_batch(model, sampler):
    """Rounding in matrix products may change a pixel by one level, not more."""
    whole = drawn(model, range(64), batch=64, sampler=sampler).int()
    for batch in (16, 5):
        difference = (drawn(model, range(64), batch=batch, sampler=sampler).int() - whole).abs()
        assert difference.max() <= 1
        assert (difference > 0).double().mean() < 1e-3


def test_an_image_depends_on_seed_and_number_only(model):
    whole = drawn(model, range(8), batch=8)
    some = drawn(model, [6, 1], batch=8, labels=[0, 1])
    assert (some.int() - whole[[6, 1]].int()).abs().max() <= 1
    assert (drawn(model, range(8), batch=8, seed=4).int() - whole.int()).abs().double().mean() > 5
    pairs = [(i, j) for i in range(8) for j in range(i)]
    assert all((whole[i].int() - whole[j].int()).abs().double().mean() > 1 for i, j in pairs)


def test_classes_and_guidance_change_the_image(model):
    one = drawn(model, [0], batch=1, labels=[0]).int()
    assert (drawn(model, [0], batch=1, labels=[1]).int() - one).abs().max() > 0
    plain = drawn(model, [0], batch=1, labels=[0], sampler=EULER.model_copy(update={"cfg_scale": 1.0})).int()
    assert (plain - one).abs().max() > 0
    nowhere = EULER.model_copy(update={"cfg_interval": (0.0, 0.0), "cfg_scale": 9.0})
    assert torch.equal(drawn(model, [0], batch=1, labels=[0], sampler=nowhere).int(), plain)


def test_pixels_equal_a_plain_restatement_of_eulers_method(model):
    """x <- x - v / 3 from t = 1, then denormalized and decoded, for a flow with velocities."""
    x = torch.stack([torch.randn((2, 8, 8), generator=generator("sample", 3, index)) for index in range(4)])
    labels = torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        for t in (1.0, 2 / 3, 1 / 3):
            time = torch.full((4,), t)
            with_class, without = (model.network(x, time, told).output for told in (labels, torch.full((4,), 3)))
            x = x - (without + 1.5 * (with_class - without)) / 3
        raw = torch.stack([x[:, c] * model.stats.std[c] + model.stats.mean[c] for c in range(2)], dim=1)
        expected = to_uint8(model.autoencoder.decode(raw))
    difference = (drawn(model, range(4), batch=4, sampler=EULER).int() - expected.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 1e-3
    assert expected.double().std() > 10      # not a uniform grey, which would hide differences


def test_balanced_classes_come_in_turn_and_lists_are_repeated():
    assert class_labels(7, 3, "balanced", seed=0) == [0, 1, 2, 0, 1, 2, 0]
    assert class_labels(5, 10, "0,3,7", seed=0) == [0, 3, 7, 0, 3]
    assert class_labels(2, 10, "9", seed=0) == [9, 9]


def test_random_classes_are_uniform_depend_on_the_seed_and_not_on_their_number():
    many = class_labels(3000, 5, "random", seed=1)
    counts = [many.count(k) for k in range(5)]
    assert sum((count - 600) ** 2 / 600 for count in counts) < 18.5      # chi square, 4 degrees of freedom, 0.1 %
    assert class_labels(10, 5, "random", seed=1) == many[:10]
    assert class_labels(3000, 5, "random", seed=2) != many


def test_unconditional_models_take_no_classes():
    assert class_labels(5, 0, "balanced", seed=0) is None
    for labels in ("3", "random"):
        with pytest.raises(RecipeError, match=f"--labels {labels}: this model has no classes"):
            class_labels(5, 0, labels, seed=0)


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("3", r"3 is not one of this model's classes 0 \.\.\. 2"),
        ("0,-1", "-1 is not one"),
        ("cats", "expected balanced, random, or numbers"),
        ("", "expected balanced, random, or numbers"),
        ("1.5", "expected balanced, random, or numbers"),
    ],
)
def test_invalid_classes_are_one_line_errors(which, words):
    with pytest.raises(RecipeError, match=words):
        class_labels(5, 3, which, seed=0)


def test_unconditional_models_sample_too(studio, model):
    tables = model.tables.model_copy(update={"labels": None})
    network = tables.model.build((2, 8, 8), 0)
    plain = replace(model, tables=tables, network=network, num_classes=0)
    images = [part for _, part in generate(plain, range(3), seed=0, sampler=STOCHASTIC, labels=None, batch=2)]
    assert [tuple(part.shape) for part in images] == [(2, 3, 32, 32), (1, 3, 32, 32)]
    assert images[0].dtype == torch.uint8


def test_pixels_are_rounded_or_truncated_as_asked(model):
    """REPA's generate.py: 255 (x + 1) / 2, clamped, truncated to uint8; levels differ where the fraction is above one half."""
    def images(**options):
        return next(generate(model, range(8), seed=3, sampler=EULER, labels=[0] * 8, batch=8, **options))[1].int()

    nearest, truncated = images(), images(rounding="truncate")
    assert set((nearest - truncated).unique().tolist()) == {0, 1}
    assert 0.3 < (nearest - truncated).float().mean() < 0.7
    x = torch.tensor([-1.2, -1.0, -0.999, 0.0, 0.999, 1.0, 1.2])
    assert to_uint8(x).tolist() == [0, 0, 0, 128, 255, 255, 255]
    assert to_uint8(x, "truncate").tolist() == [0, 0, 0, 127, 254, 255, 255]
