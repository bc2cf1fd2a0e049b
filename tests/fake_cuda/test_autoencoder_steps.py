"""Training steps of every autoencoder, regularizer, discriminator and loss on the fake GPU: no mixed devices, no waits."""

from itertools import count
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from fake_cuda.allowed import DOUBLES, added
from smtool.commands.train.run import assemble_training
from smtool.commands.train.run_autoencoder import PLAYER, build_task
from smtool.data.batches import ImageBatch
from smtool.features.encoder import RANDOM_CHANNELS
from smtool.networks import AnyAutoencoder
from smtool.networks.dino_gan import DinoDiscriminator
from smtool.randomness import streams
from smtool.recipe import Recipe, TrainAE
from smtool.regularizers import Regularizer, Regularizers
from smtool.regularizers.stay import Stay, StayingNearOriginal
from smtool.training.distributed import Ranks
from smtool.training.loop import optimize

pytestmark = pytest.mark.fake_cuda

BATCH, SIDE = 2, 32
SD_VAE: dict[str, Any] = {
    "downsample": 2, "latent_channels": 4, "channels": [4, 4], "norm_groups": 2, "blocks_per_level": 1, "mid_attention": False,
}
ONE_LEVEL: dict[str, Any] = {**SD_VAE, "downsample": 1, "channels": [4]}
"""For tests of losses, which need no second level and take half as long without."""
MODELS: dict[str, dict[str, Any]] = {
    "sd-vae": {**SD_VAE, "mid_attention": True},
    "taesd": {"width": 4},
    "dc-ae": {
        "downsample": 4, "latent_channels": 4, "channels": [4, 4, 4], "encoder_blocks": [0, 1, 1], "decoder_blocks": [0, 1, 1],
        "attention": [2], "head_channels": 4, "attention_scales": [3], "batch_norm": [1],
    },
    "rae": {
        "encoder": "random", "latent_channels": RANDOM_CHANNELS, "downsample": 8, "size": "custom", "depth": 1, "width": 8,
        "heads": 2, "hidden": 8,
    },
    "epsilon-vae": {
        **SD_VAE, "denoiser_channels": [4], "denoiser_blocks": 1,
    },
}
REGULARIZERS: dict[str, list[dict[str, Any]]] = {
    "kl": [{}],
    "esm": [{}, {"gain": "match", "downsample": "antialias"}, {"downsample": "dct-crop", "log": "none", "posterior": "mean"}],
    "latent_noise": [{"kind": "rae", "level": 0.8}, {"kind": "l-detok", "level": 3.0}],
    "uae": [{"teacher": "squeezenet", "low_pass": 1.0}],
    "dsm": [{}, {"per": "sample"}, {"block": "fit", "shape": "square", "rows_removed": [2, 3], "per": 1}, {"block": 16}],
    "scale_equivariance": [{"scales": [0.5]}, {"scales": [0.5], "form": "append"}],
    "eq_vae": [{"smallest": 0.5, "probability": 1.0}, {"smallest": 0.5, "prior": 1.0, "probability": 0.0}],
    "stay": [{"original": "given below", "bands": "low", "adaptive": True}],
    "va_vae": [{"teacher": "squeezenet"}, {"teacher": "squeezenet", "preprocessing": "released"}],
    "local_correlation": [{}],
    "latent_masking": [{"ratios": [0.5], "probabilities": [1.0]}],
    "channel_prefix": [{"lengths": [2, 4], "per_step": 2}],
}
PATCH_GAN = {"num_layers": 1, "channels": 4, "start": 0}
OTHERS: dict[str, dict[str, Any]] = {
    "wavelet and l2": {"reconstruction": {"loss": "l2"}, "wavelet": {"levels": 2, "low": 1.0, "high": [1.0, 1.0]}},
    "lpips": {"perceptual": {"net": "squeeze"}},
    "augmented discriminator": {"discriminator": {**PATCH_GAN, "updates": "simultaneous", "augment": 1.0, "rounded": True}},
    "DINO": {"discriminator": {"kind": "dino", "channels": 8, "start": 0, "updates": "simultaneous"}},
    "recomputed": {"memory": "checkpoint"},
    "smaller crops": {"data": {"sizes": [[0, 16]], "shrink": "crop"}},
}


def _tables(precision: str = "bf16", **tables: Any) -> TrainAE:
    data = {"train": "none", "image_size": SIDE, "batch": BATCH, **tables.pop("data", {})}
    rest = {"steps": 2, "precision": precision, "optimizer": {"warmup": 0}, "model": ONE_LEVEL, **tables}
    return TrainAE.model_validate({"data": data, **rest})


def _batch() -> ImageBatch:
    return ImageBatch(torch.rand(BATCH, 3, SIDE, SIDE) * 2 - 1, None, ("a", "b"))


def _loss(task, player: str, tables: TrainAE):
    draws = streams(0, 1, player, batch=BATCH, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        return task.loss(player, _batch(), draws, 1).total


def _steps(card, task, tables: TrainAE) -> None:
    """The loss of every player must not wait, except to fill the caches of constants. Its gradient must be on the card too."""
    for player in task.players:
        card.waits.clear()
        _loss(task, player, tables).backward()
        assert not added(card.waits, "step of an autoencoder", first=True)
        assert set(card.doubles) <= DOUBLES
        assert any(parameter.grad is not None for parameter in task.players[player].parameters())


@pytest.mark.parametrize("kind", MODELS)
def test_every_autoencoder_trains_without_waiting(card, kind):
    loss = {"reconstruction": {"loss": "velocity"}} if kind == "epsilon-vae" else {}
    tables = _tables(model={"kind": kind, **MODELS[kind]}, **loss)
    _steps(card, build_task(tables, "cuda", None), tables)


@pytest.mark.parametrize(("name", "table"), [(name, table) for name, tables in REGULARIZERS.items() for table in tables])
def test_every_regularizer_trains_without_waiting(card, squeezenet_weights, name, table, monkeypatch):
    if name == "stay":
        monkeypatch.setattr(
            Stay, "build", lambda self, shapes, weights: StayingNearOriginal(
                _tables().model.build(), self.weight, self.numbers, adaptive=self.adaptive
            )
        )
    tables = _tables(regularizers={name: table})
    _steps(card, build_task(tables, "cuda", squeezenet_weights), tables)


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_term_trains_without_waiting(card, squeezenet_weights, name, monkeypatch):
    if name == "DINO":
        monkeypatch.setattr("smtool.commands.train.run_autoencoder.supply_trunk", _with_tiny_trunk)
    tables = _tables(**OTHERS[name])
    _steps(card, build_task(tables, "cuda", squeezenet_weights), tables)


def test_lpips_with_its_trunk_in_bf16_trains_without_waiting(card, squeezenet_weights):
    tables = _tables(perceptual={"net": "squeeze"})
    task = build_task(tables, "cuda", squeezenet_weights)
    task.perceptual[0].precision = "bf16"
    _steps(card, task, tables)


def test_an_sd_vae_trains_with_fused_norms_without_waiting(card, monkeypatch):
    """Convolutions of the fake card do not have cuDNN's layouts, which decide on a GPU."""
    monkeypatch.setattr("smtool.networks.norm_silu._can_fuse", lambda norm, x: True)
    monkeypatch.setattr(nn.GroupNorm, "forward", None)
    tables = _tables(model=MODELS["sd-vae"])
    _steps(card, build_task(tables, "cuda", None), tables)


class _TinyTrunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mix", torch.ones(8, 3), persistent=False)

    def forward(self, images):
        return torch.stack([self.mix @ images.flatten(2)[..., :16]] * 5)


def _with_tiny_trunk(discriminator: DinoDiscriminator, weights_dir: object) -> None:
    discriminator.attach(_TinyTrunk(), dim=8)


@pytest.mark.parametrize(("precision", "updates"), [("fp16", "simultaneous"), ("fp32", "alternating")])
def test_whole_steps_with_a_discriminator_do_not_wait(card, precision, updates):
    """Losses, adaptive weight, loss scaling, clipping, both optimizers and the average of the weights."""
    tables = _tables(
        precision, steps=3, ema={"decay": 0.9}, accumulate=2, discriminator={**PATCH_GAN, "updates": updates}
    )
    task = build_task(tables, "cuda", None)
    training = assemble_training(
        Recipe(tables, "", "none", Path("none.toml")), task, Ranks(0, 1, "cuda"), batch=BATCH, averaged=PLAYER,
        optimizers=dict.fromkeys(task.players, tables.optimizer), frozen={},
    )
    for report in optimize(training, (_batch() for _ in count()), first_step=0):
        assert all(value.device.type == "cuda" for value in report.values.values())
        if report.step > 2:      # the first steps make the state of the optimizers
            assert not added(card.waits, "step of an autoencoder")
        card.waits.clear()


class _Curious(Regularizer):
    def penalty(self, encoding, draw):
        mean = encoding.latents.mean()
        return mean.square() if mean.item() > 0 else mean


def test_a_wait_that_is_added_to_a_loss_is_found(card):
    tables = _tables()
    task = build_task(tables, "cuda", None)
    task.methods["curious"] = _Curious()
    with pytest.raises(AssertionError, match="item"):
        _steps(card, task, tables)
    assert added(card.waits, "step of an autoencoder", first=True) == {
        ("item", "tasks/autoencoder.py:AutoencoderTask.terms"): 1
    }


def test_every_autoencoder_and_regularizer_is_here():
    union = get_args(get_args(AnyAutoencoder)[0])
    assert {member.model_fields["kind"].default for member in union} == set(MODELS)
    assert set(Regularizers.model_fields) == set(REGULARIZERS)
