"""Runs that start from the weights of another run or of a published file, also with other classes; mismatches are errors."""

import io

import pytest
import torch
from safetensors.torch import load_file

from smtool.commands.train.initial_weights import start_from
from smtool.errors import CheckpointError
from smtool.networks.sit import SiT
from smtool.networks.uvit import UViT

TINY = {"size": "custom", "depth": 2, "width": 32, "heads": 2}


def _network_of(run):
    return {n.removeprefix("network."): v for n, v in load_file(run / "ckpt.safetensors").items() if n.startswith("network.")}


def test_a_run_starts_where_another_ended(studio, finished, tmp_path):
    """With a learning rate near 0 the weights do not change."""
    studio.train(tmp_path / "run", "optimizer.lr=1e-12", "ema=", f"model.init={finished}", "steps=1")
    for name, value in _network_of(finished).items():
        torch.testing.assert_close(_network_of(tmp_path / "run")[name], value, rtol=0, atol=1e-9)
    assert f"starting from step 8 of a run of train-dit in {finished}" in (tmp_path / "run" / "log.txt").read_text()
    assert f'init = "{finished}"' in (tmp_path / "run" / "resolved.toml").read_text()


def test_a_resumed_run_does_not_read_the_file_again(studio, finished, tmp_path):
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes((finished / "ckpt.safetensors").read_bytes())
    studio.train(tmp_path / "run", f"model.init={moved}", "steps=1")
    moved.unlink()
    studio.train(tmp_path / "run", f"model.init={moved}", "steps=2")
    assert "resuming at step 1" in (tmp_path / "run" / "log.txt").read_text()


def test_with_other_classes_all_but_the_class_embeddings_is_copied(studio, finished):
    network = SiT(**TINY).build((2, 8, 8), 7)
    before = network.y_embedder.embedding_table.weight.clone()
    assert start_from(network, str(finished), heads=2).endswith("with new class embeddings")
    assert torch.equal(network.y_embedder.embedding_table.weight, before)
    assert torch.equal(network.blocks[1].mlp.fc2.weight, _network_of(finished)["blocks.1.mlp.fc2.weight"])
    unconditional = SiT(**TINY).build((2, 8, 8), 0)
    start_from(unconditional, str(finished), heads=2)
    assert torch.equal(unconditional.t_embedder.mlp[0].weight, _network_of(finished)["t_embedder.mlp.0.weight"])


@pytest.mark.parametrize(
    ("config", "shape", "words"),
    [
        (SiT(**TINY), (2, 16, 16), r"pos_embed is \(1, 16, 32\) there, \(1, 64, 32\) here"),
        (SiT(**{**TINY, "depth": 3}), (2, 8, 8), r"blocks\.2\..* is absent there"),
        (UViT(**TINY), (2, 8, 8), "is .* there, absent here"),
    ],
)
def test_a_mismatch_is_an_error_that_names_it(studio, finished, config, shape, words):
    with pytest.raises(CheckpointError, match=words):
        start_from(config.build(shape, 3), str(finished), heads=2)


def test_a_published_file_fills_a_network_of_its_size(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs, ours = (SiT(size="nano").build((2, 4, 4), 3) for _ in range(2))
    buffer = io.BytesIO()
    torch.save({"ema": theirs.state_dict()}, buffer)
    (tmp_path / "nano.pt").write_bytes(buffer.getvalue())
    assert start_from(ours, str(tmp_path / "nano.pt"), heads=4).startswith("starting from REPA-nano/2")
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
