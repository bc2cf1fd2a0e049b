"""Files of LightningDiT and DiT-DH: random weights with the released names, and the released tables of positions."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from smtool.checkpoints.transformers import read_transformer
from smtool.errors import CheckpointError
from smtool.networks.dit_dh import DiTDH
from smtool.networks.lightning_dit import LightningDiT, LightningDiTNetwork


def tables(side: int, head: int) -> dict[str, Tensor]:
    """released-code.md#lightningdit: repeated for the two numbers of a pair, (side * side, head)."""
    frequency = 10_000.0 ** (-torch.arange(0, head // 2, 2) / (head // 2))
    turns = torch.outer(torch.arange(side), frequency).repeat_interleave(2, 1)
    angle = torch.cat([turns[:, None].expand(-1, side, -1), turns[None].expand(side, -1, -1)], -1).reshape(-1, head)
    return {"feat_rope.freqs_cos": angle.cos(), "feat_rope.freqs_sin": angle.sin()}


@pytest.fixture
def theirs() -> LightningDiTNetwork:
    network = LightningDiT(size="custom", depth=2, width=32, heads=2, patch=1, qk_norm=True).build((4, 6, 6), 5)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name != "pos_embed":
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draws))
    return network


def test_it_is_converted_to_smtools_direction_of_time(theirs, tmp_path):
    """The result is the negated velocity at the file's time 1 - t. Neither heads nor norms of queries need to be given."""
    torch.save({"ema": theirs.state_dict() | tables(6, 16), "opt": {}}, tmp_path / "lightning.pt")
    published = read_transformer(tmp_path / "lightning.pt")
    assert (published.family, published.process, published.averaged) == ("LightningDiT", "flow", True)
    assert (published.latent_shape, published.num_classes) == ((4, 6, 6), 5)
    assert (published.config.heads, published.config.qk_norm) == (2, True)
    x, t = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0.0, 0.3, 1.0])
    labels = torch.tensor([0, 4, 5])
    expected = -theirs(x, 1 - t, labels).output
    assert_close(published.build()(x, t, labels).output, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(("change", "said"), [
    (lambda state: state | {"feat_rope.freqs_cos": state["feat_rope.freqs_cos"] + 0.1}, r"feat_rope\.freqs_cos' is missing or"),
    (lambda state: {name: value for name, value in state.items() if "feat_rope" not in name}, r"freqs_cos' is missing"),
    (lambda state: {name: value for name, value in state.items() if "norm_final" not in name}, "lacks final_layer.norm_final"),
])
def test_variants_are_refused(theirs, tmp_path, change, said):
    torch.save(change(theirs.state_dict() | tables(6, 16)), tmp_path / "lightning.pt")
    with pytest.raises(CheckpointError, match=said):
        read_transformer(tmp_path / "lightning.pt")


def test_heads_that_are_not_those_of_the_tables_are_refused(theirs, tmp_path):
    torch.save(theirs.state_dict() | tables(6, 16), tmp_path / "lightning.pt")
    assert read_transformer(tmp_path / "lightning.pt", heads=2).config.heads == 2
    with pytest.raises(CheckpointError, match=r"--heads 4: the file's table of positions .* is that of 2 heads"):
        read_transformer(tmp_path / "lightning.pt", heads=4)
    torch.save(theirs.state_dict() | tables(5, 16), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"freqs_cos' is missing or has a wrong shape"):
        read_transformer(tmp_path / "other.pt")


def test_dit_dh_is_read_unchanged(tmp_path):
    sizes = {"head_depth": 1, "head_width": 48, "head_heads": 3}
    theirs = DiTDH(size="custom", depth=2, width=32, heads=4, patch=1, **sizes).build((4, 6, 6), 5)
    state = theirs.state_dict()
    for part, head in (("enc", 8), ("dec", 16)):
        state |= {name.replace("feat", f"{part}_feat"): table for name, table in tables(6, head).items()}
    torch.save(state, tmp_path / "stage2_model.pt")
    published = read_transformer(tmp_path / "stage2_model.pt")
    assert (published.family, published.config, published.process) == ("DiT-DH", theirs.config, "flow")
    assert all(torch.equal(published.tensors[name], tensor) for name, tensor in theirs.state_dict().items())
    torch.save(state | {"dec_feat_rope.freqs_sin": 0 * state["dec_feat_rope.freqs_sin"]}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"dec_feat_rope\.freqs_sin' is missing or"):
        read_transformer(tmp_path / "other.pt")
