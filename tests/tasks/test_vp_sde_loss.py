"""Loss and gradients of U-ViT on the VP-SDE in float64, against a restatement of both papers (2209.12152, 2412.15032)."""

import math

import pytest
import torch
from torch import Tensor

from smtool.data.batches import LatentBatch
from smtool.diffusion import VPSDE
from smtool.networks.posterior import LatentStats
from smtool.networks.uvit import UViT
from smtool.randomness import initializing, streams
from smtool.tasks.diffusion import PLAYER, DiffusionTask, Labels

WIDTH, HEADS, COUNT = 16, 2, 4
WEIGHTS = (1.594, 0.884, 0.928, 0.594)


class DoubleStreams:
    """The draws of a step in float64."""

    device = "cpu"

    def __init__(self) -> None:
        self.draws = streams(3, 0, PLAYER, batch=COUNT)
        self.names: list[str] = []

    def batch(self, name: str, shape: tuple[int, ...]) -> Tensor:
        self.names.append(name)
        return self.draws.batch(name, shape).double()

    def uniform(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self.draws.uniform(name, shape).double()


def _normed(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = h.mean(-1, keepdim=True)
    return (h - mean) / (((h - mean) ** 2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def _block(w: dict[str, Tensor], name: str, h: Tensor) -> Tensor:
    inner = _normed(h, w[f"{name}.norm1.weight"], w[f"{name}.norm1.bias"]) @ w[f"{name}.attn.qkv.weight"].T
    heads = []
    for head in range(HEADS):
        size = WIDTH // HEADS
        q, k, v = (inner[..., part * WIDTH + head * size : part * WIDTH + (head + 1) * size] for part in range(3))
        scores = torch.exp(q @ k.mT / math.sqrt(size))
        heads.append(scores / scores.sum(-1, keepdim=True) @ v)
    h = h + torch.cat(heads, -1) @ w[f"{name}.attn.proj.weight"].T + w[f"{name}.attn.proj.bias"]
    inner = _normed(h, w[f"{name}.norm2.weight"], w[f"{name}.norm2.bias"]) @ w[f"{name}.mlp.fc1.weight"].T
    inner = inner + w[f"{name}.mlp.fc1.bias"]
    inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    return h + inner @ w[f"{name}.mlp.fc2.weight"].T + w[f"{name}.mlp.fc2.bias"]


def _forward(w: dict[str, Tensor], x: Tensor, time: Tensor, labels: Tensor | None) -> Tensor:
    """Patch 1, depth 2, no final convolution: tokens are the cells of x in rows."""
    angle = time[:, None] * 10_000.0 ** (-torch.arange(WIDTH // 2, dtype=torch.float64) / (WIDTH // 2))
    cells = x.flatten(2).mT @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    tokens = [torch.cat([angle.cos(), angle.sin()], 1)[:, None], cells]
    if labels is not None:
        tokens.insert(0, w["label_emb.weight"][labels][:, None])
    first = _block(w, "in_blocks.0", torch.cat(tokens, 1) + w["pos_embed"])
    h = torch.cat([_block(w, "mid_block", first), first], -1) @ w["out_blocks.0.skip_linear.weight"].T
    h = _block(w, "out_blocks.0", h + w["out_blocks.0.skip_linear.bias"])
    h = _normed(h, w["norm.weight"], w["norm.bias"])[:, len(tokens) - 1 :]
    return (h @ w["decoder_pred.weight"].T + w["decoder_pred.bias"]).mT.reshape(x.shape)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("prediction", ["eps", "x0"])
@pytest.mark.parametrize(("num_classes", "gamma"), [(0, 0.0), (3, 0.0), (0, 0.15)])
def test_loss_and_gradients_equal_the_restatement(num_classes, gamma, prediction, weights):
    """gamma: input perturbation (2301.11706, Algorithm 3), with noise of its own, of which nothing is drawn for 0."""
    with initializing(0, "test"):
        config = UViT(size="custom", depth=2, width=WIDTH, heads=HEADS, patch=1, final_conv=False)
        network = config.build((4, 3, 2), num_classes).double()
    scale = 4.0
    task = DiffusionTask(
        network,
        VPSDE(prediction=prediction, snr_scale=scale, input_perturbation=gamma).build(),
        LatentStats("scalar", torch.zeros(1), torch.ones(1), count=0, data="d"),
        labels=Labels(dropout=0.0) if num_classes else None,
        channel_weights=weights,
    )
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(COUNT, 4, 3, 2, generator=rng, dtype=torch.float64)
    labels = torch.arange(COUNT) % num_classes if num_classes else None
    draws = DoubleStreams()
    loss = task.loss(PLAYER, LatentBatch(x, torch.full_like(x, -80.0), labels, ("",) * COUNT), draws, 0)
    loss.total.backward()
    assert draws.names == ["posterior", "noise", *(["input perturbation"] if gamma else [])]

    w = {name: value.detach().clone().requires_grad_() for name, value in network.state_dict().items()}
    t, noise = DoubleStreams().uniform("time", (COUNT,)), DoubleStreams().batch("noise", tuple(x.shape))
    survival = torch.exp(-(0.1 * t + 9.95 * t**2))
    abar = (scale * survival / (1 + (scale - 1) * survival)).view(-1, 1, 1, 1)
    noisier = noise + gamma * DoubleStreams().batch("input perturbation", tuple(x.shape))
    output = _forward(w, abar.sqrt() * x + (1 - abar).sqrt() * noisier, 999 * t, labels)
    square = (output - (noise if prediction == "eps" else x)) ** 2
    expected = sum((weights or [1.0] * 4)[c] * square[:, c].mean() for c in range(4)) / 4
    expected.backward()
    torch.testing.assert_close(loss.values["diffusion"], expected.detach(), rtol=1e-11, atol=0)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, w[name].grad, rtol=1e-9, atol=1e-12, msg=name)
