"""Parts of LightningDiT restated from released-code.md#lightningdit, for the tests of LightningDiT and of DiT-DH."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers import RmsNorm, SwiGLU
from torch import Tensor, nn
from torch.testing import assert_close


class Restated:
    """Layers with the weights of a network of ours; norms and SwiGLU are timm's."""

    def __init__(self, network: nn.Module) -> None:
        self.weights, self.grid, self.patch = dict(network.named_parameters()), network.token_grid, network.config.patch

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"].flatten(1), self.weights[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        return torch.func.functional_call(RmsNorm(x.shape[-1], eps=1e-6), {"weight": self.weights[f"{name}.weight"]}, x)

    def patches(self, x: Tensor) -> Tensor:
        return F.unfold(x, self.patch, stride=self.patch).mT

    def block(self, number: int, x: Tensor, c: Tensor, *, heads: int, qk_norm: bool = False) -> Tensor:
        """c: SiLU of the condition, (B, 1 or T, width)."""
        name = f"blocks.{number}"
        parts = self.linear(f"{name}.adaLN_modulation.1", c).chunk(6, -1)
        inside = self.norm(f"{name}.norm1", x) * (1 + parts[1]) + parts[0]
        qkv = self.linear(f"{name}.attn.qkv", inside).reshape(len(x), -1, 3, heads, x.shape[-1] // heads)
        q, k, v = (qkv[:, :, index].transpose(1, 2) for index in range(3))
        if qk_norm:
            q, k = self.norm(f"{name}.attn.q_norm", q), self.norm(f"{name}.attn.k_norm", k)
        scores = _turned(q, self.grid) @ _turned(k, self.grid).mT / math.sqrt(q.shape[-1])
        attended = (torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(2)
        x = x + parts[2] * self.linear(f"{name}.attn.proj", attended)
        inside = self.norm(f"{name}.norm2", x) * (1 + parts[4]) + parts[3]
        return x + parts[5] * self._swiglu(f"{name}.mlp", inside)

    def output(self, x: Tensor, c: Tensor, shape: torch.Size) -> Tensor:
        """The final layer, and its values put in their places of a latent of this shape."""
        shift, scale = self.linear("final_layer.adaLN_modulation.1", c).chunk(2, -1)
        values = self.linear("final_layer.linear", self.norm("final_layer.norm_final", x) * (1 + scale) + shift)
        return torch.einsum("nhwpqc->nchpwq", values.reshape(len(x), *self.grid, self.patch, self.patch, -1)).reshape(shape)

    def _swiglu(self, name: str, x: Tensor) -> Tensor:
        hidden = len(self.weights[f"{name}.w12.weight"]) // 2
        given = {f"fc2.{kind}": self.weights[f"{name}.w3.{kind}"] for kind in ("weight", "bias")}
        for part, rows in (("fc1_g", slice(hidden)), ("fc1_x", slice(hidden, None))):
            given |= {f"{part}.{kind}": self.weights[f"{name}.w12.{kind}"][rows] for kind in ("weight", "bias")}
        return torch.func.functional_call(SwiGLU(x.shape[-1], hidden).double(), given, x)


def _turned(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Queries or keys (B, heads, T, d), one token and pair at a time, as a complex number."""
    result, size = x.clone(), x.shape[-1]
    for token in range(x.shape[2]):
        place = (token // grid[1], token % grid[1])
        for pair in range(size // 2):
            axis, number = divmod(pair, size // 4)
            angle = place[axis] / 10_000 ** (number / (size // 4))
            first, second = x[:, :, token, 2 * pair], x[:, :, token, 2 * pair + 1]
            values = torch.complex(first, second) * complex(math.cos(angle), math.sin(angle))
            result[:, :, token, 2 * pair], result[:, :, token, 2 * pair + 1] = values.real, values.imag
    return result


@pytest.fixture(scope="session")
def restated_parts() -> type[Restated]:
    return Restated


@pytest.fixture(scope="session")
def turned() -> Callable[[Tensor, tuple[int, int]], Tensor]:
    return _turned


@pytest.fixture(scope="session")
def randomized() -> Callable[[nn.Module], nn.Module]:
    """Network -> it with random weights, because layers with zero weights would not be tested; fixed tables are kept."""

    def change(network: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        return network

    return change


@pytest.fixture(scope="session")
def assert_equals_restatement() -> Callable[..., None]:
    """(network with 5 classes on latents 3x4x6, its restatement): output and gradients agree in float64."""

    def check(network: nn.Module, restated: Callable[..., Tensor]) -> None:
        network, generator = network.double(), torch.Generator().manual_seed(1)
        x = torch.randn(3, 3, 4, 6, dtype=torch.float64, generator=generator, requires_grad=True)
        t, labels = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64), torch.tensor([0, 4, 5])
        ours, theirs = network(x, t, labels).output, restated(network, x, t, labels)
        assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
        direction = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        gradients = [torch.autograd.grad((output * direction).sum(), [x, *learned]) for output in (ours, theirs)]
        for ours, theirs in zip(*gradients, strict=True):
            assert_close(ours, theirs, rtol=1e-9, atol=1e-9)

    return check
