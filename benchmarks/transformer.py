"""A SiT-B/2 training step (forward, backward, AdamW), eager and compiled, compared with the same network on timm's modules.

The last row gives the fraction of this machine's matrix-product rate that the faster step reaches. Its yardstick is the time of
the step's products alone at the rate of one large product, so the ratio is that fraction and cannot exceed 1.
float32 on a CPU, bfloat16 autocast on a GPU. On two CPU threads a step takes seconds, and the benchmark takes some minutes.
"""

from collections.abc import Callable

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from benchmarks import Row, race
from smtool.networks.sit import SiT, SiTNetwork

LATENT = (4, 32, 32)
NUM_CLASSES = 1000
TIMM = "blocks of timm's modules"


def run(size: str = "B", batch: int | None = None, repeats: int | None = None) -> list[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = batch or (64 if device == "cuda" else 2)
    config = SiT(size=size)
    ours, plain = (config.build(LATENT, NUM_CLASSES).to(device) for _ in range(2))
    with_timms_blocks(plain)
    _compare(ours, plain, device)
    compiled = torch.compile(ours)
    candidates = {
        name: step(network, batch, device) for name, network in {"eager": ours, "compiled": compiled, "timm": plain}.items()
    }
    side = 8192 if device == "cuda" else 1024
    candidates["product"] = product(side, device)
    times = race(candidates, repeats=repeats or (20 if device == "cuda" else 5), warmup=2)
    limit = times["product"] * step_operations(config, batch, tokens=256) / (2 * side**3)
    name = f"SiT-{size}/2 step of {batch} on {device}"
    best = min(times["eager"], times["compiled"])
    return [
        Row(name, times["eager"], "ms", times["timm"], TIMM),
        Row(f"{name}, compiled", times["compiled"], "ms", times["timm"], TIMM),
        Row(f"{name}, compiled", times["compiled"], "ms", times["eager"], "the same, eager"),
        Row(f"{name}: fraction of product rate", best, "ms", limit, f"its products at the rate of one {side}x{side} product"),
    ]


def step(network: Callable, batch: int, device: str) -> Callable[[], None]:
    """A function that makes one update on fixed noised latents."""
    generator = torch.Generator().manual_seed(0)
    x, target = (torch.randn(batch, *LATENT, generator=generator).to(device) for _ in range(2))
    t = torch.rand(batch, generator=generator).to(device)
    labels = torch.randint(NUM_CLASSES + 1, (batch,), generator=generator).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def update() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            output = network(x, t, labels).output
        (output.float() - target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(device)

    return update


def product(side: int, device: str) -> Callable[[], None]:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        torch.mm(left, right)
        _wait(device)

    return multiply


def step_operations(config: SiT, batch: int, *, tokens: int) -> float:
    """Floating-point operations of the blocks' matrix products, forward and backward (three times the forward pass)."""
    width = config.width
    of_tokens = 12 * width**2 + 2 * tokens * width  # qkv, proj, MLP; attention's two products
    return 3 * 2 * batch * config.depth * (tokens * of_tokens + 6 * width**2)


def with_timms_blocks(network: SiTNetwork) -> None:
    """Replace the network's blocks by plain ones made of timm's attention and MLP."""
    config = network.config
    for i, block in enumerate(network.blocks):
        replacement = PlainBlock(config.width, config.heads).to(network.pos_embed.device)
        replacement.load_state_dict(block.state_dict(), strict=True)
        network.blocks[i] = replacement


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, num_heads=heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, 4 * width, act_layer=lambda: nn.GELU(approximate="tanh"))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.adaLN_modulation(c).unsqueeze(1).chunk(6, dim=2)
        x = x + gate_1 * self.attn(self.norm1(x) * (1 + scale_1) + shift_1)
        return x + gate_2 * self.mlp(self.norm2(x) * (1 + scale_2) + shift_2)


@torch.no_grad()
def _compare(ours: SiTNetwork, plain: SiTNetwork, device: str) -> None:
    """Assert that both networks compute the same function, with weights of which none is 0."""
    for parameter in ours.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))
    plain.load_state_dict(ours.state_dict(), strict=True)
    inputs = torch.randn(2, *LATENT, device=device), torch.rand(2, device=device), torch.tensor([0, NUM_CLASSES], device=device)
    torch.testing.assert_close(ours(*inputs).output, plain(*inputs).output, rtol=1e-3, atol=1e-4)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
