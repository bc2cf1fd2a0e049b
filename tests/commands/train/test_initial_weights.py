"""Runs that start from the weights of another run or of a published file, also with other classes; mismatches are errors."""

import io

import pytest
import torch
from safetensors.torch import load_file

from smtool.commands.train.initial_weights import start_from
from smtool.errors import CheckpointError
from smtool.networks.dit_dh import DiTDH
from smtool.networks.lightning_dit import LightningDiT, rotary_table
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
    assert start_from(network, str(finished), kind="sit", heads=2).endswith("with new class embeddings")
    assert torch.equal(network.y_embedder.embedding_table.weight, before)
    assert torch.equal(network.blocks[1].mlp.fc2.weight, _network_of(finished)["blocks.1.mlp.fc2.weight"])
    unconditional = SiT(**TINY).build((2, 8, 8), 0)
    start_from(unconditional, str(finished), kind="sit", heads=2)
    assert torch.equal(unconditional.t_embedder.mlp[0].weight, _network_of(finished)["t_embedder.mlp.0.weight"])


@pytest.mark.parametrize(
    ("config", "shape", "words"),
    [
        (SiT(**TINY), (2, 16, 16), r"pos_embed is \(1, 16, 32\) there, \(1, 64, 32\) here"),
        (SiT(**{**TINY, "depth": 3}), (2, 8, 8), r"blocks\.2\..* is absent there"),
        (UViT(**TINY), (2, 8, 8), 'holds a network of kind "sit", but model.kind is "uvit"'),
    ],
)
def test_a_mismatch_is_an_error_that_names_it(studio, finished, config, shape, words):
    with pytest.raises(CheckpointError, match=words):
        start_from(config.build(shape, 3), str(finished), kind=config.kind, heads=2)


def test_a_published_file_fills_a_network_of_its_size(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs, ours = (SiT(size="nano").build((2, 4, 4), 3) for _ in range(2))
    buffer = io.BytesIO()
    torch.save({"ema": theirs.state_dict()}, buffer)
    (tmp_path / "nano.pt").write_bytes(buffer.getvalue())
    assert start_from(ours, str(tmp_path / "nano.pt"), kind="sit", heads=4).startswith("starting from REPA-nano/2")
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_a_published_file_of_another_backbone_is_refused(tmp_path):
    """LightningDiT has all keys of SiT but those of the MLP, and more; DiT-DH has other embeddings."""
    network = SiT(**TINY).build((2, 8, 8), 3)
    for config in (LightningDiT(**TINY, patch=2), DiTDH(**TINY, patch=2, head_width=16, head_heads=2)):
        theirs = config.build((2, 8, 8), 3)
        grid, tables = theirs.token_grid[0], {"feat_rope": 16}
        if config.kind == "dit-dh":
            tables = {"enc_feat_rope": 16, "dec_feat_rope": 8}
        stated = {}
        for place, size in tables.items():
            cos, sin = rotary_table((grid, grid), size).repeat_interleave(2, -1).float()
            stated |= {f"{place}.freqs_cos": cos, f"{place}.freqs_sin": sin}
        torch.save(theirs.state_dict() | stated, tmp_path / "theirs.pt")
        with pytest.raises(CheckpointError, match=f'holds a network of kind "{config.kind}", but model.kind is "sit"'):
            start_from(network, str(tmp_path / "theirs.pt"), kind="sit", heads=2)
