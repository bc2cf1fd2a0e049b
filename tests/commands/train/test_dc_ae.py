"""The three phases of DC-AE in whole runs: what trains, what stays, and what a recipe says before its first phase was run."""

import io
from pathlib import Path

import pytest
import torch

from smtool.commands.train import training
from smtool.errors import CheckpointError
from smtool.networks.dc_ae import DeepCompressionAutoencoder
from smtool.recipe import TrainAE, load
from smtool.report.console import Console
from smtool.tokenizers import open_tokenizer

SMALL = ["data.train=data/classes", "data.validation=data/classes", "data.image_size=32", "data.batch=4", "steps=2",
         "evaluate_every=2", "save_every=2", "optimizer.warmup=0", "validation.num_images=4", "validation.grid=4",
         "tracking.tensorboard=false"]


def run(name: str, out: Path, *changes: str) -> DeepCompressionAutoencoder:
    training.train(load(f"dc-ae/{name}", TrainAE, [*SMALL, *changes]), console=Console(file=io.StringIO()), out=out)
    opened = open_tokenizer(out)
    assert isinstance(opened, DeepCompressionAutoencoder)
    return opened


def changed(before: torch.nn.Module, after: torch.nn.Module) -> set[str]:
    new = after.state_dict()
    return {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, new[name])}


def test_a_phase_has_the_network_of_the_phase_before_it_even_before_that_was_trained(studio, tmp_path):
    first, third = (load(f"dc-ae/{name}", TrainAE).tables.model for name in ("1-full", "3-refine"))
    assert third.model_dump(exclude={"init"}) == first.model_dump(exclude={"init"})
    with pytest.raises(CheckpointError, match=r"no autoencoder at runs/dc-ae-1-full yet[\s\S]*recipes/dc-ae/1-full\.toml"):
        run("2-high-resolution", tmp_path / "early")


@pytest.mark.slow
def test_three_phases_train_what_they_name(studio, tmp_path):
    alone = ["discriminator.alone=1", "discriminator.ramp=1"]
    one = run("1-full", tmp_path / "1")
    two = run("2-high-resolution", tmp_path / "2", f"model.init={tmp_path / '1'}")
    three = run("3-refine", tmp_path / "3", f"model.init={tmp_path / '2'}", *alone)
    named = [name for name, _ in one.named_parameters()]
    beside = ("encoder.down_blocks.3.", "encoder.conv_out.", "decoder.conv_in.", "decoder.up_blocks.3.")
    assert changed(one, two) == {name for name in named if name.startswith(beside)}      # no BatchNorm statistics either
    found, head = changed(two, three), ("decoder.up_blocks.1.", "decoder.norm_out.", "decoder.conv_out.")
    assert {name for name in found if name in named} == {name for name in named if name.startswith(head)}
    held = {name for name in found if "running" in name}
    assert held == {"decoder.up_blocks.1.1.norm.running_mean", "decoder.up_blocks.1.1.norm.running_var"}
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(two.encode(images).mean, three.encode(images).mean)
